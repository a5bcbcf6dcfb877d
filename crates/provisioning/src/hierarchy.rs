use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DeviceId, GenerationId};

/// Where a device stands among gateways and the devices behind them; cvm keeps it for the platform's tools.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hierarchy {
    /// Whether it is a gateway that others may stand behind (`capabilities.iotEdge`).
    pub edge: bool,
    /// The scope that it is in: of a gateway its own, of another device that of its gateway.
    pub scope: Option<Scope>,
    /// The scopes of the gateways above it.
    pub parents: Vec<Scope>,
}

impl Hierarchy {
    /// The most scopes above a device.
    pub const MAX_PARENTS: usize = 10;
}

/// The name of a scope: 1 to 256 printable ASCII characters without blanks.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    const MAX_LENGTH: usize = 256;

    /// The scope of a gateway, in the form that tools for Azure IoT Edge know.
    pub fn of_gateway(id: &DeviceId, generation: GenerationId) -> Self {
        let short = generation.to_string();
        Self(format!("ms-azure-iot-edge://{id}-{}", &short[..16]))
    }

    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        if !(1..=Self::MAX_LENGTH).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidScope);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;

    fn try_from(text: String) -> Result<Self, InvalidScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no [`Scope`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a scope has 1 to {max} printable ASCII characters without blanks", max = Scope::MAX_LENGTH)]
pub struct InvalidScope;
