//! The `cvm` command: operate the device registry, and play a device.

use std::process::ExitCode;

mod address;
mod arguments;
mod audit;
mod aws;
mod backup;
mod broker;
mod ca;
mod ca_key;
mod certificate;
mod claim;
mod cli;
mod clock;
mod database;
mod device;
mod device_list;
mod error;
mod facts;
mod file;
mod https;
mod job;
mod operation;
mod operator_token;
mod output;
mod own_ca;
mod pem;
mod progress;
mod registry;
mod registry_api;
mod serve;
mod status;
mod table;
mod template;
mod token;
mod unknown;
mod vend;

fn main() -> ExitCode {
    cli::run()
}
