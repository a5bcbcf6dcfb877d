//! Renewal: a device that has its certificate gets the next one, and is never without.

use cvm_provisioning::{ShownCertificate, Timestamp};
use cvm_testkit::scenario::renewal;
use cvm_testkit::{Factory, Fault, MemoryRegistry};

#[tokio::test]
async fn threat_06_a_renewal_that_fails_anywhere_never_leaves_a_device_without_a_certificate() {
    Box::pin(renewal::fault_matrix(MemoryRegistry::default, &Fault::FAILURES)).await;
}

#[tokio::test]
async fn a_renewal_that_died_leaves_what_was() {
    Box::pin(renewal::a_renewal_that_died_leaves_what_was(MemoryRegistry::default)).await;
}

#[tokio::test]
async fn the_old_certificate_ends_with_its_grace() {
    Box::pin(renewal::the_old_certificate_ends_with_its_grace(MemoryRegistry::default())).await;
}

#[tokio::test]
async fn lost_answers_add_up_to_no_crowd() {
    renewal::lost_answers_add_up_to_no_crowd(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn the_same_key_gets_another_certificate_only_when_it_is_time() {
    renewal::the_same_key_gets_another_certificate_only_when_it_is_time(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn threat_28_only_a_certificate_that_counts_renews_its_device() {
    renewal::only_a_certificate_of_the_device_renews_it(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn guesses_of_others_do_not_block_a_renewal() {
    renewal::guesses_of_others_do_not_block_a_renewal(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_and_never_given_again() {
    Box::pin(renewal::an_expired_certificate_is_renewed_and_never_given_again(MemoryRegistry::default)).await;
    Box::pin(renewal::what_was_left_is_not_given_when_it_has_expired(MemoryRegistry::default)).await;
}

#[tokio::test]
async fn threat_04_an_expired_certificate_lets_no_clone_in() {
    renewal::an_expired_certificate_lets_no_clone_in(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn threat_29_an_expired_certificate_proves_its_device_within_its_grace() {
    renewal::an_expired_certificate_proves_its_device_within_its_grace(MemoryRegistry::default).await;
}

#[tokio::test]
async fn threat_06_an_operators_renewal_leaves_no_gap() {
    Box::pin(renewal::an_operators_renewal_leaves_no_gap(MemoryRegistry::default)).await;
}

#[test]
fn threat_28_a_certificate_counts_from_its_beginning_to_the_end_of_its_grace_and_renews_from_its_middle() {
    let certificate = Factory::new("factory").made("sn-1");
    let (begin, end) = (Timestamp::from(certificate.not_before()), Timestamp::from(certificate.not_after()));
    let middle = begin.after(begin.until(end) / 2);
    let grace = end.after(ShownCertificate::MAX_GRACE);
    let at = |moment: Timestamp, seconds: i64| {
        let now = Timestamp::from_seconds(moment.seconds() + seconds);
        ShownCertificate::of(&certificate, now).map(|shown| shown.renewable)
    };
    assert_eq!((at(begin, -1), at(begin, 0)), (None, Some(false)));
    assert_eq!((at(middle, -1), at(middle, 0)), (Some(false), Some(true)));
    assert_eq!((at(end, 1), at(grace, 0), at(grace, 1)), (Some(true), Some(true), None));
}
