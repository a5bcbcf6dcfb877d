//! The vending function: `POST /v1/certificates` and EST behind an HTTP API of API Gateway (payload 2.0).

mod configuration;

use std::sync::Arc;
use std::time::SystemTime;

use cvm_aws::{AwsIot, Clients, DynamoDbRegistry, KmsSigner, OwnCa};
use cvm_http::{Caller, ClientCertificate, Est, device_router};
use cvm_lambda::{Environment, configured, start_log};
use cvm_provisioning::{Certificate, LogAudit, Timestamp, Vend};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt as _, service_fn};
use tower::ServiceExt as _;

use crate::configuration::{Configuration, OwnCaConfiguration};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    start_log();
    let Configuration { device_id_from, handout, refused_keys, table, templates, own_ca } =
        configured(Configuration::read(&Environment::of_process()))?;
    let clients = configured(Clients::of_function())?;
    // AWS IoT's own CA is nobody's to trust; what a device checks is the endpoint's.
    let mut ca_certificates = vec![Certificate::parse(handout.root_ca.pem())?];
    let mut platform = AwsIot::new(clients.iot);
    if let Some(own_ca) = own_ca {
        let own_ca = sign_with(own_ca)?;
        ca_certificates.push(own_ca.authority.certificate().clone());
        ca_certificates.extend_from_slice(own_ca.authority.above());
        platform = platform.with_own_ca(own_ca);
    }
    let vend = Vend {
        registry: DynamoDbRegistry::new(clients.dynamodb, table),
        platform,
        audit: LogAudit,
        templates,
        refused_keys,
    };
    let est = Est { ca_certificates: Box::new(move |_| ca_certificates.clone()), labels: Vec::new() };
    let router = device_router(Arc::new(vend), handout, est, device_id_from, now);
    lambda_http::run(service_fn(move |request| router.clone().oneshot(with_caller(request)))).await
}

/// The CA of one's own, with its key in AWS KMS.
fn sign_with(configuration: OwnCaConfiguration) -> Result<OwnCa, lambda_http::Error> {
    let OwnCaConfiguration { certificates, key_id, profile, arn_prefix } = configuration;
    let signer = KmsSigner::known(configured(Clients::kms_of_function())?, key_id, certificates.key.clone());
    Ok(OwnCa { authority: configured(certificates.with_key(signer))?, profile, arn_prefix, clock: now })
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The request with what API Gateway says of its caller; nothing of it is taken from a header. A custom domain with mutual
/// TLS has verified the certificate that it names.
fn with_caller(mut request: Request) -> Request {
    let (caller, certificate) = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            let shown = context.authentication.as_ref().and_then(|shown| shown.client_cert.as_ref());
            let pem = shown.and_then(|certificate| certificate.client_cert_pem.as_deref());
            let caller = Caller { request_id: context.request_id.clone(), source: context.http.source_ip.clone() };
            (caller, pem.and_then(|pem| Certificate::parse(pem).ok()))
        }
        _ => (Caller::default(), None),
    };
    request.extensions_mut().insert(caller);
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(ClientCertificate(Arc::new(certificate)));
    }
    request
}
