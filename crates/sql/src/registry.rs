use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use cvm_provisioning::{Certificate, RegistryError};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::{OpenError, SqlError};
use crate::issuers::{IssuedBy, Issuers};
use crate::mysql::{self, MySql};
use crate::queue::{Work, submit, submit_unattended};
use crate::sqlite::{self, Sqlite};

/// The device registry on SQLite or on MySQL. Clones share the database.
#[derive(Clone, Debug)]
pub struct SqlRegistry {
    database: Arc<Database>,
    counts_later: bool,
    issuers: Issuers,
}

#[derive(Debug)]
enum Database {
    MySql(MySql),
    Sqlite(Box<Sqlite>),
}

impl SqlRegistry {
    fn of(database: Arc<Database>) -> Self {
        Self { database, counts_later: false, issuers: Issuers::default() }
    }

    /// Says which certificates are of the server's own CAs, once: a device is then restored with such a certificate alone.
    pub fn know_issuers(&self, recognize: impl Fn(&Certificate) -> Option<IssuedBy> + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.issuers.0.set(Box::new(recognize));
    }

    pub(crate) fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// The registry in a folder of its own, made where it is not there. No other server may have it open.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn in_folder(folder: &Path) -> Result<Self, OpenError> {
        Ok(Self::of(Arc::new(Database::Sqlite(Box::new(Sqlite::open(folder)?)))))
    }

    /// The registry in a folder, to be looked into alone: whoever has it open goes on, and every change is refused.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn look_into(folder: &Path) -> Result<Self, OpenError> {
        Ok(Self::of(Arc::new(Database::Sqlite(Box::new(Sqlite::look_into(folder)?)))))
    }

    /// The registry on a MySQL or MariaDB at `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, which any number of servers may
    /// share.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn on_mysql(address: &str) -> Result<Self, OpenError> {
        Ok(Self::of(Arc::new(Database::MySql(MySql::open(address)?))))
    }

    /// The same registry, where counting a refusal does not delay the answer: it is queued, and written before the
    /// registry is closed. The response time then does not reveal whether there is such a device. A clone is written
    /// down before it is answered: the caller had the right proof.
    #[must_use]
    pub fn counting_later(self) -> Self {
        Self { counts_later: true, ..self }
    }

    /// Whether refusals are counted after the answer.
    pub(crate) const fn counts_later(&self) -> bool {
        self.counts_later
    }

    /// Looks at every page of the database, so that nobody works with half of one: a second or two for each gigabyte that is
    /// in memory, and as long as the disk takes for what is not. MySQL looks at each page whenever it reads one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`], and those of a file that cannot be read.
    pub fn check_pages(&self) -> Result<(), OpenError> {
        match &*self.database {
            Database::MySql(_) => Ok(()),
            Database::Sqlite(sqlite) => sqlite.check_pages(),
        }
    }

    /// Copies the registry in `folder` into the folder `copy`, as it is at one moment, whoever works on it. What is in the copy
    /// is on the disk, and each of its pages was looked at.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; what is in `copy` then is to be thrown away.
    pub fn copy(folder: &Path, copy: &Path) -> Result<(), OpenError> {
        sqlite::copy(folder, copy)
    }

    /// Whether other servers may have it open, too.
    pub fn is_shared(&self) -> bool {
        matches!(*self.database, Database::MySql(_))
    }

    /// The same, to be looked into alone: its schema stays as it is, and every change is refused.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn look_into_mysql(address: &str) -> Result<Self, OpenError> {
        Ok(Self::of(Arc::new(Database::MySql(MySql::look_into(address)?))))
    }

    /// Does this in one transaction that writes, and returns when it is on the disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let queue = match &*self.database {
            Database::MySql(mysql) => Some(&mysql.work),
            Database::Sqlite(sqlite) => sqlite.writes(),
        };
        self.answer(submit(queue.ok_or(SqlError::Closed)?, work)).await
    }

    /// Does this in one transaction that writes, and returns before that.
    pub(crate) fn write_unattended(
        &self,
        what: &'static str,
        work: impl FnMut(&mut dyn Connection) -> Result<(), SqlError> + Send + 'static,
    ) -> Result<(), RegistryError> {
        let queue = match &*self.database {
            Database::MySql(mysql) => Some(&mysql.work),
            Database::Sqlite(sqlite) => sqlite.writes(),
        };
        Ok(submit_unattended(queue.ok_or(SqlError::Closed)?, what, work)?)
    }

    /// Does this in one transaction that only reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.answer(submit(self.reads()?, work)).await
    }

    /// The same for what reads everything, however long that takes.
    pub(crate) async fn read_all<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        Ok(submit(self.reads()?, work).await?)
    }

    fn reads(&self) -> Result<&SyncSender<Box<dyn Work>>, SqlError> {
        let queue = match &*self.database {
            Database::MySql(mysql) => Some(&mysql.work),
            Database::Sqlite(sqlite) => sqlite.reads(),
        };
        queue.ok_or(SqlError::Closed)
    }

    /// Waits for an answer, as long as a request may wait for one: a database that is frozen answers nothing, and work that
    /// waits behind other work waits no longer than that.
    async fn answer<T>(&self, answer: impl Future<Output = Result<T, SqlError>>) -> Result<T, RegistryError> {
        let longest = match &*self.database {
            Database::MySql(_) => mysql::LONGEST,
            Database::Sqlite(_) => sqlite::LONGEST,
        };
        let answered = timeout(longest, answer).await;
        Ok(answered.unwrap_or_else(|_| Err(SqlError::Late { seconds: longest.as_secs() }))?)
    }

    /// Does this, which is one statement that reads a row or two.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut dyn Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        if let Database::Sqlite(sqlite) = &*self.database
            && let Some(found) = sqlite.look(&mut work)
        {
            return Ok(found?);
        }
        self.read(work).await
    }
}
