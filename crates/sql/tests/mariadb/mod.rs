//! A MariaDB for the tests of one process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use cvm_sql::SqlRegistry;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use tempfile::TempDir;

const DATABASES: usize = 10;
const START: Duration = Duration::from_secs(60);

/// A running server; the last one who has it ends it.
pub(crate) struct MariaDb {
    address: String,
    own: Option<Own>,
}

/// A server that the tests have started themselves.
struct Own {
    folder: TempDir,
    port: u16,
    process: Mutex<Child>,
}

static RUNNING: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());
static INSTALLING: Mutex<()> = Mutex::new(());

impl MariaDb {
    /// The server of this process, started if it does not run.
    pub(crate) fn start() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap();
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(match std::env::var("CVM_TEST_MYSQL") {
            Ok(address) => Self { address, own: None },
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

    /// The texts that this statement finds.
    pub(crate) async fn query(&self, statement: &str) -> Vec<String> {
        let opts = Opts::from_url(&self.address(0)).unwrap();
        let mut connection = Conn::new(opts).await.unwrap();
        let texts = connection.query(statement).await.unwrap();
        connection.disconnect().await.unwrap();
        texts
    }

    /// The address of the database by way of a line that is cut when so many statements are done, before anybody is told
    /// of the last one.
    pub(crate) fn address_cut_after(&self, database: usize, statements: usize) -> String {
        let opts = Opts::from_url(&self.address).unwrap();
        let line = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = line.local_addr().unwrap().port();
        let server = TcpStream::connect((opts.ip_or_hostname(), opts.tcp_port())).unwrap();
        thread::spawn(move || {
            let (client, _) = line.accept().unwrap();
            drop(line);
            relay(&client, &server, statements);
        });
        let address = self.address(database);
        let user = address.split_once('@').unwrap().0;
        // Else it looks for the socket of a server on the same machine, and goes past the line.
        format!("{user}@127.0.0.1:{port}/cvm_{database}?prefer_socket=false")
    }

    /// A server that nobody else has, so that it may be killed; none where the tests are given one.
    pub(crate) fn alone() -> Option<Self> {
        std::env::var_os("CVM_TEST_MYSQL").is_none().then(Self::launch)
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) fn kill(&self) {
        if let Some(Own { process, .. }) = &self.own {
            let mut process = process.lock().unwrap();
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Has it take what it is asked and say nothing, as a machine does that has vanished from the network.
    pub(crate) fn silence(&self) {
        self.signal("-STOP");
    }

    /// Has it answer again.
    pub(crate) fn wake(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        if let Some(Own { process, .. }) = &self.own {
            let process = process.lock().unwrap().id().to_string();
            assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
        }
    }

    /// Runs it again, and returns when it answers.
    pub(crate) fn run(&self) {
        if let Some(Own { folder, port, process }) = &self.own {
            *process.lock().unwrap() = run(folder.path(), *port);
        }
    }

    fn launch() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut install = Command::new(program("mariadb-install-db"));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", folder.path().join("data").display()));
        let installed = {
            // One at a time: each starts a server of its own to do it.
            let _turn = INSTALLING.lock().unwrap();
            quiet(install, folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
        };
        let said = [installed.stdout, installed.stderr].concat();
        assert!(installed.status.success(), "mariadb-install-db failed: {}", String::from_utf8_lossy(&said));
        let database = |number| format!("CREATE DATABASE IF NOT EXISTS cvm_{number};\n");
        let databases: String = (0..DATABASES).map(database).collect();
        let users = "CREATE USER IF NOT EXISTS 'cvm'@'%' IDENTIFIED BY 'cvm';\nGRANT ALL ON *.* TO 'cvm'@'%';\n";
        fs::write(folder.path().join("init.sql"), format!("{databases}{users}")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Mutex::new(run(folder.path(), port));
        Self { address: format!("mysql://cvm:cvm@127.0.0.1:{port}"), own: Some(Own { folder, port, process }) }
    }
}

/// Runs the server in this folder, and returns when it answers.
fn run(folder: &Path, port: u16) -> Child {
    let mut server = Command::new(program("mariadbd"));
    server.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"]);
    // What a process has written outlives it; only a machine that stops needs more, and none does here.
    server.arg("--innodb-flush-method=nosync");
    for (option, file) in [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid"), ("init-file", "init.sql")] {
        server.arg(format!("--{option}={}", folder.join(file).display()));
    }
    server.arg(format!("--port={port}"));
    let mut process = quiet(server, folder).spawn().unwrap();
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "mariadbd came to an end");
        assert!(began.elapsed() < START, "mariadbd did not start");
        thread::sleep(Duration::from_millis(50));
    }
    process
}

impl Drop for Own {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Hands on what they say until so many statements are done.
fn relay(client: &TcpStream, server: &TcpStream, statements: usize) {
    /// The first byte of a packet that has a prepared statement executed (MySQL, "COM_STMT_EXECUTE").
    const EXECUTE: u8 = 0x17;
    let was_the_last = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut said = [0; 4_096];
            while let Ok(length @ 1..) = (&mut &*server).read(&mut said) {
                if was_the_last.load(Ordering::SeqCst) || (&mut &*client).write_all(&said[..length]).is_err() {
                    break;
                }
            }
            for end in [client, server] {
                // It may have ended by itself.
                let _ = end.shutdown(Shutdown::Both);
            }
        });
        let mut executed = 0;
        let mut head = [0; 4];
        // Three bytes of length, and a number that is 0 for a command.
        while (&mut &*client).read_exact(&mut head).is_ok() {
            let mut packet = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
            if (&mut &*client).read_exact(&mut packet).is_err() {
                break;
            }
            executed += usize::from(head[3] == 0 && packet.first() == Some(&EXECUTE));
            was_the_last.store(executed == statements, Ordering::SeqCst);
            if (&mut &*server).write_all(&[&head, &packet[..]].concat()).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
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
    // A server removes the temporary files of others when it starts.
    command.env("TMPDIR", folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
