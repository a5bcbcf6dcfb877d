//! Serves DynamoDB from memory on a free port of the loopback interface. Prints the endpoint; exits when stdin is closed, so
//! that it does not outlive the test that started it.

use std::error::Error;

use dynoxide::Database;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let database = Database::memory().map_err(|error| error.to_string())?;
    let mut input = [0];
    tokio::select! {
        () = dynoxide::server::serve_on(listener, database) => {}
        _ = async { tokio::io::stdin().read(&mut input).await } => {}
    }
    // A thread of tokio still reads stdin if the server ended first.
    std::process::exit(0)
}
