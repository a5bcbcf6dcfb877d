use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};

/// The clients of the services that a vend calls.
#[derive(Clone, Debug)]
pub struct Clients {
    /// DynamoDB, where the device registry is.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The control plane of AWS IoT.
    pub iot: aws_sdk_iot::Client,
}

impl Clients {
    /// The longest a call may take with all its retries. A vend is four steps and a release, so it ends well before the
    /// function's deadline and long before [`Attempt::LEASE`](cvm_provisioning::Attempt::LEASE).
    pub const CALL_TIMEOUT: Duration = Duration::from_millis(2_500);
    /// The longest one try of a call may take.
    const TRY_TIMEOUT: Duration = Duration::from_millis(1_200);
    const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
    /// Tries of one call. A device that is told to come back later costs less than one that waits here.
    const TRIES: u32 = 3;

    /// Clients for the region, credentials and endpoint (`AWS_ENDPOINT_URL`) that the environment names, wherever a
    /// person may have them: profiles, single sign-on, roles.
    pub async fn from_environment() -> Self {
        let config = aws_config::from_env().timeout_config(timeouts()).retry_config(retries()).load().await;
        Self { dynamodb: aws_sdk_dynamodb::Client::new(&config), iot: aws_sdk_iot::Client::new(&config) }
    }

    /// The data plane of AWS IoT at the endpoint that devices connect to, as host or host:port, with what
    /// [`Clients::from_environment`] finds.
    pub async fn iot_data_from_environment(endpoint: &str) -> aws_sdk_iotdataplane::Client {
        let config = aws_config::from_env().timeout_config(timeouts()).retry_config(retries()).load().await;
        let is_given = config.endpoint_url().is_some() || std::env::var_os(IOT_DATA_ENDPOINT).is_some();
        iot_data(&config, endpoint, is_given)
    }

    /// AWS KMS, as [`Clients::from_environment`] finds it.
    pub async fn kms_from_environment() -> aws_sdk_kms::Client {
        let config = aws_config::from_env().timeout_config(timeouts()).retry_config(retries()).load().await;
        aws_sdk_kms::Client::new(&config)
    }

    /// Clients for what Lambda puts into a function's environment, and nothing else: looking for credentials in all the
    /// other places is a sixth of a binary, and time at every cold start.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when it is not there.
    pub fn of_function() -> Result<Self, NotAFunction> {
        Ok(Self {
            dynamodb: Self::dynamodb_of_function()?,
            iot: aws_sdk_iot::Client::new(&function_config("AWS_ENDPOINT_URL_IOT")?),
        })
    }

    /// The data plane of AWS IoT at the endpoint that devices connect to, as host or host:port.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when the environment is not a function's.
    pub fn iot_data_of_function(endpoint: &str) -> Result<aws_sdk_iotdataplane::Client, NotAFunction> {
        let config = function_config(IOT_DATA_ENDPOINT)?;
        Ok(iot_data(&config, endpoint, config.endpoint_url().is_some()))
    }

    /// AWS KMS.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when the environment is not a function's.
    pub fn kms_of_function() -> Result<aws_sdk_kms::Client, NotAFunction> {
        Ok(aws_sdk_kms::Client::new(&function_config("AWS_ENDPOINT_URL_KMS")?))
    }

    /// EventBridge.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when the environment is not a function's.
    pub fn eventbridge_of_function() -> Result<aws_sdk_eventbridge::Client, NotAFunction> {
        Ok(aws_sdk_eventbridge::Client::new(&function_config("AWS_ENDPOINT_URL_EVENTBRIDGE")?))
    }

    /// What a client of another service is made of, whose endpoint may be given by `endpoint` or by `AWS_ENDPOINT_URL`.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when the environment is not a function's.
    pub fn config_of_function(endpoint: &str) -> Result<SdkConfig, NotAFunction> {
        function_config(endpoint)
    }

    /// The client of DynamoDB alone, for a function that has no business with AWS IoT.
    ///
    /// # Errors
    ///
    /// [`NotAFunction`] when the environment is not a function's.
    pub fn dynamodb_of_function() -> Result<aws_sdk_dynamodb::Client, NotAFunction> {
        Ok(aws_sdk_dynamodb::Client::new(&function_config("AWS_ENDPOINT_URL_DYNAMODB")?))
    }
}

/// The variable that says where the data plane of AWS IoT is.
const IOT_DATA_ENDPOINT: &str = "AWS_ENDPOINT_URL_IOT_DATA_PLANE";

/// The data plane, at the devices' endpoint unless the environment has given another.
fn iot_data(config: &SdkConfig, endpoint: &str, is_given: bool) -> aws_sdk_iotdataplane::Client {
    let mut builder = aws_sdk_iotdataplane::config::Builder::from(config);
    if !is_given {
        // The port is MQTT's; HTTPS has its own.
        let host = endpoint.split(':').next().unwrap_or(endpoint);
        builder = builder.endpoint_url(format!("https://{host}"));
    }
    aws_sdk_iotdataplane::Client::from_conf(builder.build())
}

/// The environment lacks what Lambda gives to every function (AWS Lambda Developer Guide, *Defined runtime environment
/// variables*).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{variable} is not set; Lambda sets it, elsewhere run `eval \"$(aws configure export-credentials --format env)\"` first"
)]
pub struct NotAFunction {
    /// The name of the variable.
    variable: &'static str,
}

/// The configuration for one service, whose endpoint may be given by `endpoint` or by `AWS_ENDPOINT_URL`.
fn function_config(endpoint: &str) -> Result<SdkConfig, NotAFunction> {
    let optional = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let required = |variable| optional(variable).ok_or(NotAFunction { variable });
    let switched_on = |name| optional(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let credentials = Credentials::new(
        required("AWS_ACCESS_KEY_ID")?,
        required("AWS_SECRET_ACCESS_KEY")?,
        optional("AWS_SESSION_TOKEN"),
        None,
        "the function's environment",
    );
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(required("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .use_fips(switched_on("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(switched_on("AWS_USE_DUALSTACK_ENDPOINT"))
        .timeout_config(timeouts())
        .retry_config(retries());
    config.set_endpoint_url(optional(endpoint).or_else(|| optional("AWS_ENDPOINT_URL")));
    Ok(config.build())
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Clients::CONNECT_TIMEOUT)
        .operation_attempt_timeout(Clients::TRY_TIMEOUT)
        .operation_timeout(Clients::CALL_TIMEOUT)
        .build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(Clients::TRIES)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_millis(500))
}
