//! The options that name a server.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::token::OperatorToken;
use super::{ApiError, RegistryApi};
use crate::address::{Address, InvalidAddress};
use crate::output::Output;

/// Which server, and as whom.
#[derive(Args, Debug)]
pub(crate) struct ServerArguments {
    /// The server whose registry it is, in the place of a table: the address of `cvm serve`
    #[arg(long, global = true, env = "CVM_SERVER", value_name = "URL", help_heading = "Common options")]
    server: Option<Given>,
    /// Trust these CAs (PEM) for the server's TLS, and no others: ca/ca.pem in its folder, where it has no other
    /// certificate
    #[arg(long, global = true, env = "CVM_SERVER_CA", value_name = "FILE", help_heading = "Common options")]
    server_ca: Option<PathBuf>,
    /// The file with your token, `-` for stdin, as `cvm token create` makes it, for nobody else to read; without it the
    /// environment variable CVM_OPERATOR_TOKEN is looked at
    #[arg(long, global = true, env = "CVM_OPERATOR_TOKEN_FILE", value_name = "FILE", help_heading = "Common options")]
    operator_token_file: Option<PathBuf>,
}

/// An address; an empty variable names none.
#[derive(Clone, Debug)]
struct Given(Option<Address>);

impl FromStr for Given {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

impl ServerArguments {
    /// The registry of the server that is named, where one is.
    pub(crate) fn open<'a>(&self, output: &'a Output) -> Result<Option<RegistryApi<'a>>, ApiError> {
        let Some(Given(Some(address))) = &self.server else { return Ok(None) };
        let set = |path: &&PathBuf| !path.as_os_str().is_empty();
        let file = self.operator_token_file.as_ref().filter(set);
        let token = OperatorToken::read(file.map(PathBuf::as_path), std::env::var_os("CVM_OPERATOR_TOKEN"))?;
        let root_ca = self.server_ca.as_ref().filter(set);
        RegistryApi::new(address.clone(), root_ca.map(PathBuf::as_path), token, output).map(Some)
    }
}
