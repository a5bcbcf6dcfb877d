//! The certificate provider: AWS IoT has it sign what devices ask for in fleet provisioning.

mod configuration;
mod provider;

use std::time::SystemTime;

use cvm_aws::{Clients, KmsSigner};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::LogAudit;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;

use crate::configuration::Configuration;
use crate::provider::Provider;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    start_log();
    let Configuration { certificates, key_id, profile, refused_keys, client_ids, device_id_from } =
        configured(Configuration::read(&Environment::of_process()))?;
    let signer = KmsSigner::known(configured(Clients::kms_of_function())?, key_id, certificates.key.clone());
    let authority = configured(certificates.with_key(signer))?;
    let provider = &Provider { authority, profile, refused_keys, client_ids, device_id_from, audit: LogAudit };
    let handle = async |event: LambdaEvent<Value>| {
        let answer = provider.answer(event.payload, event.context.request_id, SystemTime::now().into()).await;
        answer.map_err(lambda_runtime::Error::from)
    };
    Box::pin(lambda_runtime::run(service_fn(handle))).await
}
