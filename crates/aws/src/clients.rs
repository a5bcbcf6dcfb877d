use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;

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

    /// Clients for the region, credentials and endpoint (`AWS_ENDPOINT_URL`) that the environment names.
    pub async fn from_environment() -> Self {
        let config = Self::config().await;
        Self { dynamodb: aws_sdk_dynamodb::Client::new(&config), iot: aws_sdk_iot::Client::new(&config) }
    }

    /// The client of DynamoDB alone, for a function that has no business with AWS IoT.
    pub async fn dynamodb_from_environment() -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&Self::config().await)
    }

    async fn config() -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Self::CONNECT_TIMEOUT)
            .operation_attempt_timeout(Self::TRY_TIMEOUT)
            .operation_timeout(Self::CALL_TIMEOUT)
            .build();
        aws_config::from_env()
            .timeout_config(timeouts)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(Self::TRIES)
                    .with_initial_backoff(Duration::from_millis(50))
                    .with_max_backoff(Duration::from_millis(500)),
            )
            .load()
            .await
    }
}
