//! The vending function: `POST /v1/certificates` behind an HTTP API of API Gateway (payload 2.0).

mod configuration;

use std::sync::Arc;
use std::time::SystemTime;

use cvm_aws::{AwsIot, Clients, DynamoDbRegistry};
use cvm_http::Caller;
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{LogAudit, Vend};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt as _, service_fn};
use tower::ServiceExt as _;

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    start_log();
    let Configuration { handout, refused_keys, table, templates } =
        configured(Configuration::read(&Environment::of_process()))?;
    let clients = configured(Clients::of_function())?;
    let vend = Vend {
        registry: DynamoDbRegistry::new(clients.dynamodb, table),
        platform: AwsIot::new(clients.iot),
        audit: LogAudit,
        templates,
        refused_keys,
    };
    let router = cvm_http::router(Arc::new(vend), handout, || SystemTime::now().into());
    lambda_http::run(service_fn(move |request| router.clone().oneshot(with_caller(request)))).await
}

/// The request with what API Gateway says of its caller; nothing of it is taken from a header.
fn with_caller(mut request: Request) -> Request {
    let caller = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            Caller { request_id: context.request_id.clone(), source: context.http.source_ip.clone() }
        }
        _ => Caller::default(),
    };
    request.extensions_mut().insert(caller);
    request
}
