//! A Postgres whose data is on a disk that loses its power.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tests::process::{Program, Running};

/// How long a start with its recovery may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The server's files; it runs between [`Postgres::start`] and the end of what that returns.
pub(super) struct Postgres {
    programs: PathBuf,
    /// Postgres refuses to run as root.
    user: String,
    data: PathBuf,
    sockets: TempDir,
}

impl Postgres {
    /// Makes the files of one on the disk that is mounted at `disk`.
    pub(super) fn on(disk: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("postgres.sh");
        let told = Command::new(script).arg("--programs").output();
        let told = told.expect("tests/postgres.sh can be run").stdout;
        let told = String::from_utf8_lossy(&told);
        let (programs, user) = told.trim().split_once(' ').expect("Postgres is installed");
        let sockets = tempfile::tempdir().expect("a temporary folder can be made");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(sockets.path(), open).expect("it is ours");
        let postgres = Self {
            programs: programs.into(),
            user: user.to_owned(),
            data: disk.join("postgres"),
            sockets,
        };
        let made = Command::new("setpriv")
            .args(postgres.as_user())
            .arg(postgres.programs.join("initdb"))
            .args(["-U", "halfmoon", "-A", "trust", "-E", "UTF8", "--locale=C"])
            .arg("-D")
            .arg(&postgres.data)
            .current_dir("/")
            .output();
        let made = made.expect("setpriv can be run");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {said}");
        postgres
    }

    fn as_user(&self) -> [String; 3] {
        [
            format!("--reuid={}", self.user),
            format!("--regid={}", self.user),
            "--clear-groups".to_owned(),
        ]
    }

    /// Starts it and waits until it has recovered.
    pub(super) fn start(&self) -> Running {
        let mut program = Program::new("setpriv");
        for argument in self.as_user() {
            program = program.argument(argument);
        }
        program = program
            .argument(self.programs.join("postgres"))
            .argument("-D")
            .argument(&self.data)
            .argument("-k")
            .argument(self.sockets.path());
        // The disk is small.
        for setting in [
            "listen_addresses=",
            "max_wal_size=64MB",
            "min_wal_size=32MB",
        ] {
            program = program.argument("-c").argument(setting);
        }
        let running = program.spawn().expect("setpriv can be run");
        let is_ready = |said: &[String]| {
            let mut said = said.iter();
            said.any(|line| line.contains("ready to accept connections"))
        };
        assert!(running.hears(READY_WITHIN, is_ready), "{}", running.told());
        running
    }

    /// Makes a database; its URL.
    pub(super) async fn database(&self, name: &str) -> String {
        let mut connection = PgConnection::connect(&self.url("postgres")).await;
        let connection = connection.as_mut().expect("it is ready");
        for sql in [
            format!("CREATE DATABASE {name}"),
            // Its user has the name of a schema, where tables would be made otherwise.
            format!("ALTER DATABASE {name} SET search_path TO public"),
        ] {
            let made = sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await;
            made.expect("its owner may do that");
        }
        self.url(name)
    }

    /// Makes room.
    pub(super) async fn drop_database(&self, name: &str) {
        let connection = PgConnection::connect(&self.url("postgres")).await;
        let mut connection = connection.expect("it is ready");
        let sql = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        let dropped = sqlx::query(sql).execute(&mut connection).await;
        dropped.expect("its owner may do that");
    }

    fn url(&self, database: &str) -> String {
        let sockets = self.sockets.path().display();
        format!("postgres://halfmoon@localhost/{database}?host={sockets}")
    }
}
