//! Claims, which operators fetch as trusted users for devices that AWS IoT provisions.

use axum::Router;
use cvm_aws::{AwsIot, DynamoDbRegistry};
use cvm_http::{Handout, Problem, claim_router};
use cvm_provisioning::{TemplateName, TrustedUsers};

use super::refusals::Refusals;
use super::{ServeArguments, ServeError, now};

/// What claims are made out for, and how many.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Claims {
    /// The template of devices whose item names none.
    pub(super) template: TemplateName,
    pub(super) per_user_per_day: u64,
}

impl Claims {
    /// What `arguments` say about them; everything that is wrong with that is told.
    pub(super) fn of(arguments: &ServeArguments, of_stack: bool, tell: &mut impl FnMut(&str, String)) -> Option<Self> {
        let template = arguments.claim_template.clone()?;
        if !of_stack {
            // AWS IoT takes a Lambda function for its hook, and nothing else.
            let text = "it goes with the platform aws and the database dynamodb:TABLE: about each device with a claim AWS \
                        IoT asks the hook of a stack, which knows the registry in the stack's table and no other";
            tell("claim-template", text.to_owned());
            return None;
        }
        Some(Self { template, per_user_per_day: arguments.claims_per_user_per_day })
    }

    /// The door at which they are made out, once AWS IoT has said that its hook is asked about them.
    pub(super) async fn door(
        self,
        registry: DynamoDbRegistry,
        platform: AwsIot,
        handout: Handout,
        audit: Refusals,
    ) -> Result<Router, ServeError> {
        let Self { template, per_user_per_day } = self;
        match platform.has_hook(&template).await {
            Ok(true) => {}
            Ok(false) => return Err(ServeError::NoHook { template }),
            Err(source) => return Err(ServeError::ClaimTemplate { template, source }),
        }
        let users =
            TrustedUsers { registry, platform, audit, default_template: template, claims_per_day: per_user_per_day };
        Ok(claim_router(users, handout, now))
    }
}

/// What is answered where no claims are made out.
pub(super) fn nowhere() -> Router {
    Router::new().fallback(async || {
        Problem::not_found(
            "no claims are made out here; with AWS IoT and the table of a stack, --claim-template has it do so",
        )
    })
}
