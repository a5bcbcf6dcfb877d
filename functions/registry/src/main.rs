//! The registry for operators' tools, behind an HTTP API of API Gateway (payload 2.0), whose authorizer says who asks.

mod configuration;

use std::time::{Duration, SystemTime};

use cvm_aws::{Clients, DynamoDbAuditTrail, DynamoDbJobs, DynamoDbRegistry};
use cvm_http::{Caller, Jobs, Operator, Registry, registry_router, unknown_devices_elsewhere};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{Actor, Operations};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequestContext;
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt as _, service_fn};
use tower::ServiceExt as _;

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    start_log();
    let configuration = configured(Configuration::read(&Environment::of_process()))?;
    let dynamodb = configured(Clients::dynamodb_of_function())?;
    let registry = Registry {
        operations: Operations { registry: DynamoDbRegistry::new(dynamodb.clone(), configuration.table) },
        // It is only read here, so that nothing has to be known of how long it is kept.
        trail: DynamoDbAuditTrail::new(dynamodb.clone(), configuration.audit_table, Duration::ZERO),
        hears_of_connections: true,
    };
    let files = configuration.job_bucket;
    let store = DynamoDbJobs::new(dynamodb, configuration.job_table);
    let jobs = Jobs { store, output: files.folder("jobs"), files };
    let more = jobs.routes().merge(unknown_devices_elsewhere());
    let router = registry_router(registry, more, || SystemTime::now().into());
    lambda_http::run(service_fn(move |request| router.clone().oneshot(with_operator(request)))).await
}

/// The request with what API Gateway says of its caller; nothing of it is taken from a header.
fn with_operator(mut request: Request) -> Request {
    let (caller, operator) = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            let source = context.http.source_ip.clone();
            (Caller { request_id: context.request_id.clone(), source }, operator(context))
        }
        _ => (Caller::default(), None),
    };
    request.extensions_mut().insert(caller);
    // A caller cannot have put one there, but the last word is the authorizer's.
    request.extensions_mut().remove::<Operator>();
    if let Some(operator) = operator {
        request.extensions_mut().insert(operator);
    }
    request
}

/// Who the authorizer says it is: the subject of a token, or the ARN of whoever signed the request.
fn operator(context: &ApiGatewayV2httpRequestContext) -> Option<Operator> {
    let authorizer = context.authorizer.as_ref()?;
    let subject = authorizer.jwt.as_ref().and_then(|jwt| jwt.claims.get("sub")).map(String::as_str);
    let arn = authorizer.iam.as_ref().and_then(|iam| iam.user_arn.as_deref());
    Actor::new(subject.or(arn)?).map(Operator)
}
