//! A MariaDB for the tests of one process.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use cvm_sql::SqlRegistry;
use tempfile::TempDir;

const DATABASES: usize = 6;
const START: Duration = Duration::from_secs(60);

/// A running server; the last one who has it ends it.
pub(crate) struct MariaDb {
    address: String,
    process: Option<Mutex<Child>>,
    _folder: Option<TempDir>,
}

static RUNNING: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());

impl MariaDb {
    /// The server of this process, started if it does not run.
    pub(crate) fn start() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap();
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(match std::env::var("CVM_TEST_MYSQL") {
            Ok(address) => Self { address, process: None, _folder: None },
            Err(_) => Self::launch(),
        });
        *running = Arc::downgrade(&server);
        server
    }

    pub(crate) fn address(&self, database: usize) -> String {
        format!("{}/cvm_{database}", self.address)
    }

    pub(crate) fn registry(&self, database: usize) -> SqlRegistry {
        SqlRegistry::on_mysql(&self.address(database)).unwrap()
    }

    fn launch() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut install = Command::new(program("mariadb-install-db"));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", data.display()));
        assert!(quiet(install, folder.path()).status().unwrap().success(), "mariadb-install-db failed");
        let databases: String = (0..DATABASES).map(|number| format!("CREATE DATABASE cvm_{number};\n")).collect();
        let users = "CREATE USER 'cvm'@'%' IDENTIFIED BY 'cvm';\nGRANT ALL ON *.* TO 'cvm'@'%';\n";
        let init = folder.path().join("init.sql");
        fs::write(&init, format!("{databases}{users}")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new(program("mariadbd"));
        server.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"]);
        server.arg(format!("--datadir={}", data.display()));
        server.arg(format!("--socket={}", folder.path().join("socket").display()));
        server.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        server.arg(format!("--init-file={}", init.display()));
        server.arg(format!("--port={port}"));
        let mut process = quiet(server, folder.path()).spawn().unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "mariadbd came to an end");
            assert!(began.elapsed() < START, "mariadbd did not start");
            thread::sleep(Duration::from_millis(50));
        }
        let address = format!("mysql://cvm:cvm@127.0.0.1:{port}");
        Self { address, process: Some(Mutex::new(process)), _folder: Some(folder) }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            let mut process = process.lock().unwrap();
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Debian has the server where only root looks for programs.
fn program(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: install mariadb-server, or set CVM_TEST_MYSQL"))
}

/// Says nothing, and runs as root only if that is asked for.
fn quiet(mut command: Command, folder: &Path) -> Command {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata(folder).unwrap().uid() == 0 {
        command.arg("--user=root");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
