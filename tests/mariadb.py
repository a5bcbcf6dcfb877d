"""A MariaDB of its own for a test (Debian: mariadb-server)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_aws import free_port
from stack import until

PASSWORD = "marked/secret@of:the%database"


@contextmanager
def empty_database(folder: Path) -> Iterator[list[object]]:
    """What a server has to be told of an empty database; its user's password is in a file."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    install, mariadbd = (shutil.which(name, path=path) for name in ["mariadb-install-db", "mariadbd"])
    assert install and mariadbd, "MariaDB is missing: install it (Debian: mariadb-server)"
    data, init, port = folder / "mariadb", folder / "init.sql", free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []
    common = ["--no-defaults", f"--datadir={data}", *user]
    # A server removes the temporary files of others when it starts.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {"TMPDIR": str(folder)}}
    subprocess.run([install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, **quiet)
    init.write_text(
        f"CREATE DATABASE cvm;\nCREATE USER 'cvm'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON cvm.* TO 'cvm'@'%';\n"
    )
    options = [f"--socket={folder}/socket", f"--pid-file={folder}/pid", f"--init-file={init}", f"--port={port}"]
    options += ["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"]
    process = subprocess.Popen([mariadbd, *common, *options], **quiet)
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)

    def is_up() -> bool:
        assert process.poll() is None
        return (folder / "pid").exists()

    try:
        until(is_up, "a MariaDB", seconds=60)
        yield ["--database", f"mysql://cvm@127.0.0.1:{port}/cvm", "--database-password-file", folder / "password"]
    finally:
        process.kill()
        process.wait()
