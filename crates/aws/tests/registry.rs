//! The registry on DynamoDB, over a DynamoDB that runs beside the test: the contract, and every scenario of the vend.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{BehaviorVersion, ConfigBag, Credentials, Intercept, Region, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::types::builders::ProjectionBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, StreamSpecification, StreamViewType,
};
use axum::Extension;
use axum::body::Body;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderValue, Request, StatusCode};
use cvm_aws::{
    CERTIFICATE_INDEX, DynamoDbAuditTrail, DynamoDbJobs, DynamoDbRegistry, HOUR_INDEX, JOB_KEY, TABLE_KEY,
    UNSETTLED_INDEX,
};
use cvm_http::{Jobs, Operator, Registry, registry_router};
use cvm_provisioning::{Actor, Changes as _, Operations, Reserve, VendRequest};
use cvm_testkit::{Effect, Fault, LocalDynamoDb, MemoryJobs, MemoryTrail, Script, contract, fixture, scenario};
use tower::ServiceExt as _;

#[tokio::test]
async fn the_registry_on_dynamodb_keeps_the_contract() {
    let database = TestDatabase::start();
    contract::registry(&database.registry("contract").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    let database = TestDatabase::start();
    contract::fifty_reservations_at_once(&database.registry("reservations").await).await;
    scenario::vend::fifty_callers_with_one_key(database.registry("one-key").await).await;
    scenario::vend::fifty_callers_with_fifty_keys(database.registry("fifty-keys").await).await;
}

#[tokio::test]
async fn threat_33_a_vend_that_fails_anywhere_ends_with_one_certificate_that_works() {
    let database = TestDatabase::start();
    let registry = database.registry("faults").await;
    scenario::vend::fault_matrix(|| registry.clone()).await;
    // What else can go wrong goes as wrong over the registry in memory.
    scenario::vend::own_ca_fault_matrix(|| registry.clone(), &[Fault::Kill(Effect::After)]).await;
}

#[tokio::test]
async fn threat_06_a_renewal_that_fails_never_leaves_a_device_without_a_certificate() {
    let database = TestDatabase::start();
    let registry = database.registry("renewal").await;
    Box::pin(scenario::renewal::a_renewal_that_died_leaves_what_was(|| registry.clone())).await;
    Box::pin(scenario::renewal::the_same_key_gets_another_certificate_only_when_it_is_time(registry.clone())).await;
    Box::pin(scenario::renewal::an_operators_renewal_leaves_no_gap(|| registry.clone())).await;
    Box::pin(scenario::renewal::an_expired_certificate_is_renewed_and_never_given_again(|| registry.clone())).await;
    Box::pin(scenario::renewal::an_expired_certificate_lets_no_clone_in(registry.clone())).await;
    Box::pin(scenario::renewal::an_expired_certificate_proves_its_device_within_its_grace(|| registry.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_a_key_is_one_devices() {
    let database = TestDatabase::start();
    contract::a_key_is_one_devices(&database.registry("keys").await).await;
}

/// A crash between the two: the device is reserved, and nobody knows of its key.
#[tokio::test]
async fn threat_08_a_crash_between_the_reservation_and_the_key_gives_no_second_device_the_key() {
    let database = TestDatabase::start();
    let registry = database.registry("crashed").await;
    for first_is_back_before in [true, false] {
        let names = ["first", "second"].map(|name| format!("{name}-{first_is_back_before}"));
        let key = fixture::csr(&names[0]);
        for name in &names {
            assert!(registry.add(&fixture::device(name), &fixture::origin()).await.unwrap());
        }
        let reserve = async |device: usize, seconds: u32| {
            let attempt = fixture::attempt(&names[device], seconds.into(), &key, fixture::later(seconds.into()));
            registry.reserve(&attempt).await.unwrap()
        };
        assert!(matches!(reserve(0, 1).await, Reserve::Held(_)));
        let item = AttributeValue::S(format!("key/{}", key.key().fingerprint()));
        let crash = database.client.delete_item().table_name("crashed").key(TABLE_KEY, item);
        assert!(crash.send().await.is_ok());

        let order = if first_is_back_before { [0, 1] } else { [1, 0] };
        assert!(matches!(reserve(order[0], 200).await, Reserve::Held(_)), "{order:?}");
        let in_use = reserve(order[1], 240).await;
        assert!(
            matches!(&in_use, Reserve::KeyInUse { owner, .. } if owner.as_str() == names[order[0]]),
            "{order:?}: {in_use:?}"
        );
    }
}

/// What a vend costs on the table; what it costs at AWS IoT stands beside it in the tests of the domain.
#[tokio::test]
async fn a_fresh_vend_is_three_calls_a_replay_one_and_every_refusal_the_same_two() {
    let database = TestDatabase::start();
    let registry = database.registry("calls").await;
    let (key, clone) = (fixture::csr("sn-1"), fixture::csr("sn-1"));
    let world = scenario::World::new(registry.clone(), fixture::device("sn-1")).await;
    let calls = async |request: VendRequest| {
        database.calls.take();
        let vend = world.vend(&Script::default());
        let answer = vend.vend(request).await;
        (answer.is_ok(), database.calls.take())
    };
    let vend = |number, csr| fixture::request("sn-1", number, Some(csr), fixture::NOW);
    let fresh = calls(vend(1, &key)).await;
    assert_eq!(fresh, (true, ["GetItem", "TransactWriteItems", "PutItem"].map(str::to_owned).into()));
    assert_eq!(calls(vend(2, &key)).await, (true, vec!["GetItem".to_owned()]));
    let refused = (false, ["GetItem", "UpdateItem"].map(str::to_owned).to_vec());
    let unknown = fixture::request("sn-2", 3, Some(&key), fixture::NOW);
    let wrong = VendRequest { token: None, ..vend(4, &key) };
    for request in [unknown, wrong] {
        assert_eq!(calls(request).await, refused);
    }
    // A clone changes the device: that is a write of the same kind.
    let cloned = calls(vend(5, &clone)).await;
    assert_eq!(cloned, (false, ["GetItem", "PutItem"].map(str::to_owned).into()));
    assert_eq!(calls(vend(6, &key)).await, refused, "it is in quarantine");
}

#[tokio::test]
async fn threat_03_a_guesser_keeps_nobody_out() {
    let database = TestDatabase::start();
    scenario::vend::a_guesser_keeps_nobody_out(database.registry("guessed").await, 2).await;
}

#[tokio::test]
async fn a_device_disabled_in_the_middle_of_a_vend_ends_without_power() {
    let database = TestDatabase::start();
    let registry = database.registry("disabled").await;
    scenario::vend::disabled_at_every_call(|| registry.clone()).await;
}

#[tokio::test]
async fn an_attempt_that_wakes_up_after_its_lease_harms_nobody() {
    let database = TestDatabase::start();
    let registry = database.registry("sleepers").await;
    scenario::vend::a_sleeper_harms_nobody(|| registry.clone()).await;
}

#[tokio::test]
async fn what_an_operator_decides_holds_whatever_devices_do() {
    let database = TestDatabase::start();
    let registry = database.registry("decisions").await;
    scenario::lifecycle::a_decision_in_the_middle_of_a_vend(|| registry.clone()).await;
    scenario::lifecycle::a_decision_in_the_middle_of_a_first_connection(|| registry.clone()).await;
    scenario::lifecycle::a_device_registered_again_is_another(|| registry.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disable_racing_fifty_vends_leaves_no_power() {
    let database = TestDatabase::start();
    scenario::lifecycle::a_disable_racing_fifty_vends(database.registry("race").await).await;
}

#[tokio::test]
async fn a_table_whose_writes_nobody_follows_up_is_told() {
    let database = TestDatabase::start();
    let registry = database.registry("lacks").await;
    assert_eq!(registry.lack().await.unwrap(), Some("stream"));
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    let update = database.client.update_table().table_name("lacks").stream_specification(stream.build().unwrap());
    update.send().await.unwrap();
    assert_eq!(registry.lack().await.unwrap(), None);
    database.audit_trail("trail").await;
    let other = DynamoDbRegistry::new(database.client.clone(), "trail");
    assert_eq!(other.lack().await.unwrap(), Some("key `deviceId` alone"));
    assert!(DynamoDbRegistry::new(database.client, "none").lack().await.is_err());
}

#[tokio::test]
async fn the_audit_trail_on_dynamodb_keeps_the_contract() {
    let database = TestDatabase::start();
    contract::audit_trail(&database.audit_trail("trail").await).await;
}

#[tokio::test]
async fn the_jobs_on_dynamodb_keep_the_contract() {
    let database = TestDatabase::start();
    contract::job_store(&database.jobs("jobs").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_operators_with_one_entity_tag_one_wins() {
    let database = TestDatabase::start();
    let operations = Operations { registry: database.registry("operators").await };
    let served = Registry { operations, trail: MemoryTrail::default(), hears_of_connections: true };
    let operator = Operator(Actor::new("anna").unwrap());
    let (files, output) = ("s3://fleet".parse().unwrap(), "s3://fleet/jobs".parse().unwrap());
    let jobs = Jobs { store: MemoryJobs::default(), files, output };
    let router = registry_router(served, jobs.routes(), || fixture::NOW).layer(Extension(operator));
    let put = |tag: Option<HeaderValue>, body: String| {
        let mut request = Request::put("/devices/sn-1").body(Body::from(body)).unwrap();
        request.headers_mut().extend(tag.map(|tag| (IF_MATCH, tag)));
        tokio::spawn(router.clone().oneshot(request))
    };
    let made = put(None, "{}".to_owned()).await.unwrap().unwrap();
    let mut tag = made.headers()[ETAG].clone();
    for round in 0..10 {
        let [one, other] = ["one", "other"]
            .map(|who| put(Some(tag.clone()), format!(r#"{{"statusReason": "{who} in round {round}"}}"#)));
        let (one, other) = (one.await.unwrap().unwrap(), other.await.unwrap().unwrap());
        let (won, lost) = if one.status() == StatusCode::OK { (one, other) } else { (other, one) };
        assert_eq!((won.status(), lost.status()), (StatusCode::OK, StatusCode::PRECONDITION_FAILED));
        tag = won.headers()[ETAG].clone();
    }
}

/// A DynamoDB of this test's own.
/// The names of the calls in their order.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    /// Those since this was asked last.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "calls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap();
        self.0.lock().unwrap().push(target.rsplit('.').next().unwrap().to_owned());
        Ok(())
    }
}

struct TestDatabase {
    client: Client,
    calls: Calls,
    _process: LocalDynamoDb,
}

impl TestDatabase {
    fn start() -> Self {
        let (process, calls) = (LocalDynamoDb::start(), Calls::default());
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::for_tests())
            .endpoint_url(process.endpoint())
            .interceptor(calls.clone())
            .region(Region::new("eu-central-1"))
            .build();
        Self { client: Client::from_conf(config), calls, _process: process }
    }

    async fn registry(&self, table: &str) -> DynamoDbRegistry {
        let attribute =
            |name, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap();
        let key = |name| KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Hash).build().unwrap();
        let index = |name, attribute, projection: ProjectionBuilder| {
            let index = GlobalSecondaryIndex::builder().index_name(name).key_schema(key(attribute));
            index.projection(projection.build()).build().unwrap()
        };
        let keys = Projection::builder().projection_type(ProjectionType::KeysOnly);
        let with_use = Projection::builder()
            .projection_type(ProjectionType::Include)
            .non_key_attributes("reservedCertificate")
            .non_key_attributes("usedAt");
        self.client
            .create_table()
            .table_name(table)
            .attribute_definitions(attribute(TABLE_KEY, ScalarAttributeType::S))
            .attribute_definitions(attribute("certificateId", ScalarAttributeType::S))
            .attribute_definitions(attribute("unsettledSince", ScalarAttributeType::N))
            .key_schema(key(TABLE_KEY))
            .global_secondary_indexes(index(CERTIFICATE_INDEX, "certificateId", with_use))
            .global_secondary_indexes(index(UNSETTLED_INDEX, "unsettledSince", keys))
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .unwrap();
        DynamoDbRegistry::new(self.client.clone(), table)
    }

    async fn jobs(&self, table: &str) -> DynamoDbJobs {
        let attribute = AttributeDefinition::builder().attribute_name(JOB_KEY).attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name(JOB_KEY).key_type(KeyType::Hash);
        self.client
            .create_table()
            .table_name(table)
            .attribute_definitions(attribute.build().unwrap())
            .key_schema(key.build().unwrap())
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .unwrap();
        DynamoDbJobs::new(self.client.clone(), table)
    }

    async fn audit_trail(&self, table: &str) -> DynamoDbAuditTrail {
        let attribute = |name| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(ScalarAttributeType::S).build().unwrap()
        };
        let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let hours = GlobalSecondaryIndex::builder()
            .index_name(HOUR_INDEX)
            .key_schema(key("hour", KeyType::Hash))
            .key_schema(key("moment", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::All).build());
        self.client
            .create_table()
            .table_name(table)
            .set_attribute_definitions(Some(["deviceId", "moment", "hour"].map(attribute).to_vec()))
            .key_schema(key("deviceId", KeyType::Hash))
            .key_schema(key("moment", KeyType::Range))
            .global_secondary_indexes(hours.build().unwrap())
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .unwrap();
        DynamoDbAuditTrail::new(self.client.clone(), table, Duration::from_secs(86_400))
    }
}

#[tokio::test]
async fn threat_43_a_registration_that_fails_anywhere_ends_with_one_certificate_in_power() {
    let database = TestDatabase::start();
    let registry = database.registry("registrations").await;
    Box::pin(scenario::first_connect::fault_matrix(|| registry.clone())).await;
    Box::pin(scenario::first_connect::a_clone_never_joins(|| registry.clone())).await;
    Box::pin(scenario::first_connect::fifty_deliveries_at_once(registry)).await;
}

#[tokio::test]
async fn threat_11_a_claim_counts_and_blocks_nobody_and_a_clone_claims_nothing() {
    let database = TestDatabase::start();
    let registry = database.registry("claims").await;
    scenario::claims::fault_matrix(|| registry.clone()).await;
    scenario::claims::a_lost_answer_bricks_nobody(registry.clone()).await;
    scenario::claims::a_failed_provisioning_blocks_nobody(registry.clone()).await;
    scenario::claims::a_clone_claims_nothing(registry.clone()).await;
    scenario::claims::the_first_to_connect_stays(registry).await;
}

#[tokio::test]
async fn threat_45_the_reconciler_removes_what_attempts_left_and_nothing_else() {
    let database = TestDatabase::start();
    let registry = database.registry("leftovers").await;
    scenario::reconcile::fault_matrix(|| registry.clone(), &[Fault::Kill(Effect::After)]).await;
    scenario::reconcile::a_reservation_is_confirmed_or_released(|| registry.clone()).await;
    scenario::reconcile::a_factory_certificate_is_never_removed(|| registry.clone()).await;
}

#[tokio::test]
async fn what_differs_is_told_and_what_was_decided_is_made_up_for() {
    let database = TestDatabase::start();
    let registry = database.registry("differences").await;
    scenario::reconcile::drift_is_told(|| registry.clone()).await;
    scenario::reconcile::a_revoked_device_has_no_power(|| registry.clone()).await;
    scenario::reconcile::foreign_things_are_told_and_left(registry).await;
}
