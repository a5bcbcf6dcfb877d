//! Claims for trusted users: `POST /v1/claims` behind an HTTP API of API Gateway (payload 2.0), whose authorizer says
//! who asks.

mod configuration;

use std::time::SystemTime;

use cvm_aws::{AwsIot, Clients, DynamoDbRegistry};
use cvm_http::{Caller, claim_router};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{LogAudit, TrustedUser, TrustedUsers};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequestContext;
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt as _, service_fn};
use tower::ServiceExt as _;

use crate::configuration::Configuration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    start_log();
    let configuration = configured(Configuration::read(&Environment::of_process()))?;
    let clients = configured(Clients::of_function())?;
    let users = TrustedUsers {
        registry: DynamoDbRegistry::new(clients.dynamodb, configuration.table),
        platform: AwsIot::new(clients.iot),
        audit: LogAudit,
        default_template: configuration.default_template,
        claims_per_day: configuration.claims_per_day,
    };
    let router = claim_router(users, configuration.handout, || SystemTime::now().into());
    lambda_http::run(service_fn(move |request| router.clone().oneshot(with_user(request)))).await
}

/// The request with what API Gateway says of its caller; nothing of it is taken from a header.
fn with_user(mut request: Request) -> Request {
    let (caller, user) = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            let source = context.http.source_ip.clone();
            (Caller { request_id: context.request_id.clone(), source }, user(context))
        }
        _ => (Caller::default(), None),
    };
    request.extensions_mut().insert(caller);
    // A caller cannot have put one there, but the last word is the authorizer's.
    request.extensions_mut().remove::<TrustedUser>();
    if let Some(user) = user {
        request.extensions_mut().insert(user);
    }
    request
}

/// Who the authorizer says it is: the subject of a token, or the ARN of whoever signed the request.
fn user(context: &ApiGatewayV2httpRequestContext) -> Option<TrustedUser> {
    let authorizer = context.authorizer.as_ref()?;
    let subject = authorizer.jwt.as_ref().and_then(|jwt| jwt.claims.get("sub")).map(String::as_str);
    let arn = authorizer.iam.as_ref().and_then(|iam| iam.user_arn.as_deref());
    subject.or(arn)?.parse().ok()
}
