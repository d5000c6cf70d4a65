//! The settings of the client: which broker it speaks to, as whom, and where it keeps the names.
//!
//! Invariants: a password is no flag; the files of a broker's data folder are read for a broker of
//! this machine alone, unless the folder is named.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use url::{Host, Url};

use super::{
    ConfigError,
    paths::{self, path},
    wrong,
};
use crate::model::{
    bom::without_bom,
    limits::CLIENT_REQUEST_TIMEOUT,
    secret::{Credentials, Secret},
};

/// Where a broker keeps what it made at its first start, unless it is told otherwise.
const DATA_DIR: &str = "./data";

/// What stands above these settings in the help.
pub const CLIENT_SETTINGS_HEADING: &str = "The broker";
/// The address of a broker that nothing was said of.
const DEFAULT_BROKER: &str = "http://127.0.0.1:8080";
/// Said where nobody answers at that address, and a variable of a broker's is set.
const LISTEN_HINT: &str = "COMPOSE_BROKER_LISTEN is set, which says where a broker listens; COMPOSE_BROKER_URL says \
                           where the client finds it, and is not set";

/// The client's settings as they are written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = CLIENT_SETTINGS_HEADING)]
pub struct ClientSettings {
    /// Address of the broker
    #[arg(
        short,
        long,
        env = "COMPOSE_BROKER_URL",
        value_name = "URL",
        default_value = DEFAULT_BROKER
    )]
    pub broker: String,

    /// User name that the broker knows [default: for a broker of this machine, DATA_DIR/username]
    #[arg(long, env = "COMPOSE_BROKER_USERNAME")]
    pub username: Option<String>,

    /// Data folder of a broker, to read its user name and password from [default: ./data]
    #[arg(long, env = "COMPOSE_BROKER_DATA_DIR", value_parser = path())]
    pub data_dir: Option<PathBuf>,

    /// Certificates of the authorities to trust (PEM file) [default: those of this machine]
    #[arg(long, env = "COMPOSE_BROKER_CA", value_name = "FILE", value_parser = path())]
    pub ca: Option<PathBuf>,

    /// Organization of new instances
    #[arg(
        long = "org",
        env = "COMPOSE_BROKER_ORG",
        value_name = "ID",
        default_value = "org"
    )]
    pub organization: String,

    /// Space of new instances
    #[arg(
        long,
        env = "COMPOSE_BROKER_SPACE",
        value_name = "ID",
        default_value = "space"
    )]
    pub space: String,

    /// File with the names of instances and keys
    /// [default: compose-broker/client.json in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "COMPOSE_BROKER_STATE", value_name = "FILE", value_parser = path())]
    pub state: Option<PathBuf>,

    /// How long the broker may take for an answer, in seconds [default: 60]
    #[arg(long, env = "COMPOSE_BROKER_TIMEOUT", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Pause between two looks at what goes on, in seconds [default: as the broker says]
    #[arg(long, env = "COMPOSE_BROKER_POLL", value_name = "SECONDS", value_parser = seconds)]
    pub poll: Option<Duration>,
}

/// What `--help` says of the setting that holds a secret.
pub const CLIENT_SECRETS_HELP: &str = "\
The password is taken from the environment only:
  COMPOSE_BROKER_PASSWORD  [default: for a broker of this machine, DATA_DIR/password]";

/// The client's settings, checked.
#[derive(Debug)]
pub struct ClientConfig {
    /// Where the broker is.
    pub broker: Url,
    /// As whom we come.
    pub credentials: Credentials,
    /// Where the password was taken from.
    pub password_from: String,
    /// What to say where the broker cannot be reached.
    pub hint: Option<&'static str>,
    /// The authorities to trust; absent: those of this machine.
    pub ca: Option<PathBuf>,
    /// The organization of new instances.
    pub organization: String,
    /// The space of new instances.
    pub space: String,
    /// The file with the names.
    pub state: PathBuf,
    /// How long the broker may take for an answer.
    pub timeout: Duration,
    /// The pause between two looks; absent: as the broker says.
    pub poll: Option<Duration>,
    /// The columns that results may take (`COLUMNS`); absent: as the terminal has.
    pub columns: Option<usize>,
    /// Who sits at this terminal, as the system calls them.
    pub user: String,
}

impl ClientConfig {
    /// Whether others can read what the broker is told.
    pub fn is_in_the_open(&self) -> bool {
        self.broker.scheme() == "http" && !is_of_this_machine(&self.broker)
    }

    /// Checks the settings and reads what they leave to files.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    pub fn load(settings: &ClientSettings) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self::check(settings, variable)
    }

    fn check(
        settings: &ClientSettings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let broker = address(&settings.broker)?;
        for (setting, text) in [
            ("COMPOSE_BROKER_ORG", &settings.organization),
            ("COMPOSE_BROKER_SPACE", &settings.space),
        ] {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err(wrong(setting, "is empty or has a control character"));
            }
        }
        paths::check(&[
            ("COMPOSE_BROKER_DATA_DIR", settings.data_dir.as_deref()),
            ("COMPOSE_BROKER_CA", settings.ca.as_deref()),
            ("COMPOSE_BROKER_STATE", settings.state.as_deref()),
        ])?;
        let state = state_file(settings, &variable)?;
        let (credentials, password_from) =
            credentials(settings, &broker, variable("COMPOSE_BROKER_PASSWORD"))?;
        let is_default = settings.broker == DEFAULT_BROKER;
        let listens = variable("COMPOSE_BROKER_LISTEN").is_some();
        Ok(Self {
            broker,
            credentials,
            password_from,
            hint: (is_default && listens).then_some(LISTEN_HINT),
            ca: settings.ca.clone(),
            organization: settings.organization.clone(),
            space: settings.space.clone(),
            state,
            timeout: settings.timeout.unwrap_or(CLIENT_REQUEST_TIMEOUT),
            poll: settings.poll,
            columns: columns_in(variable("COLUMNS")),
            user: variable("USER")
                .or_else(|| variable("LOGNAME"))
                .unwrap_or_else(|| "unknown".into()),
        })
    }
}

/// The columns that the environment names (`COLUMNS`), for the help: it is told before there are settings.
pub fn columns_named() -> Option<usize> {
    columns_in(std::env::var("COLUMNS").ok())
}

fn columns_in(text: Option<String>) -> Option<usize> {
    let columns = text.and_then(|text| text.parse().ok());
    columns.filter(|columns| *columns > 0)
}

/// The file of names.
fn state_file(
    settings: &ClientSettings,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, ConfigError> {
    if let Some(file) = &settings.state {
        return Ok(file.clone());
    }
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let folder = variable("XDG_STATE_HOME").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_absolute()).or_else(home);
    let reason = "is needed where there is no home folder";
    let folder = folder.ok_or_else(|| wrong("COMPOSE_BROKER_STATE", reason))?;
    Ok(folder.join("compose-broker/client.json"))
}

/// The file of names and the broker's address, as the environment has them: for what completes command
/// lines.
pub fn names_of_environment() -> Option<(PathBuf, String)> {
    #[derive(clap::Parser)]
    struct Nothing {
        #[command(flatten)]
        settings: ClientSettings,
    }
    let settings = <Nothing as clap::Parser>::try_parse_from(["client"]);
    let settings = settings.ok()?.settings;
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let broker = address(&settings.broker).ok()?;
    let broker = broker.as_str().trim_end_matches('/').to_owned();
    Some((state_file(&settings, variable).ok()?, broker))
}

/// The words of the command line.
pub fn words() -> Vec<String> {
    std::env::args().collect()
}

/// Where this program is, for a shell that calls it.
pub fn program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// Those that the settings give, else those that a broker of this machine keeps; and where the password is
/// from.
fn credentials(
    settings: &ClientSettings,
    broker: &Url,
    password: Option<String>,
) -> Result<(Credentials, String), ConfigError> {
    // A password of this machine is nothing to tell to others.
    let data_dir = match &settings.data_dir {
        Some(folder) => Some(folder.clone()),
        None => is_of_this_machine(broker).then(|| DATA_DIR.into()),
    };
    let kept = |setting, name| {
        let Some(folder) = &data_dir else {
            return Err(wrong(setting, "is needed for a broker of another machine"));
        };
        let file = folder.join(name);
        let text = fs::read_to_string(&file).map_err(|e| {
            let hint = match &settings.data_dir {
                None => "; name the broker's folder with --data-dir",
                Some(_) => "",
            };
            let reason = format!("is not set, and {}: {e}{hint}", file.display());
            wrong(setting, reason)
        })?;
        Ok(Secret::new(without_bom(&text).trim()))
    };
    let username = match &settings.username {
        Some(name) => name.clone(),
        None => kept("COMPOSE_BROKER_USERNAME", "username")?
            .expose()
            .to_owned(),
    };
    let (password, from) = match password {
        Some(password) => (Secret::new(password), "COMPOSE_BROKER_PASSWORD".to_owned()),
        None => {
            let password = kept("COMPOSE_BROKER_PASSWORD", "password")?;
            let folder = data_dir.as_deref().unwrap_or(Path::new(DATA_DIR));
            (password, folder.join("password").display().to_string())
        }
    };
    Ok((Credentials { username, password }, from))
}

/// A broker's address, without a slash at its end.
fn address(text: &str) -> Result<Url, ConfigError> {
    let wrong = |reason| wrong("COMPOSE_BROKER_URL", reason);
    let mut url = Url::parse(text).map_err(|_| wrong("is no address such as https://host"))?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err(wrong("is no address such as https://host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "holds a user name or a password; others would see it",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("holds more than an address and a path"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Whether nobody else can listen at that address.
fn is_of_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds")?;
    let pause = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
    if pause.is_zero() {
        return Err("is not more than nothing".into());
    }
    Ok(pause)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: ClientSettings,
    }

    fn load(flags: &[&str], variables: &[(&str, &str)]) -> Result<ClientConfig, ConfigError> {
        let line = [&["client"], flags].concat();
        let settings = Line::try_parse_from(line).expect("flags").settings;
        ClientConfig::check(&settings, |name| {
            let set = variables.iter().find(|(variable, _)| *variable == name);
            set.map(|(_, value)| (*value).to_owned())
        })
    }

    const HOME: (&str, &str) = ("HOME", "/home/ada");
    const PASSWORD: (&str, &str) = ("COMPOSE_BROKER_PASSWORD", "word");

    #[test]
    fn credentials_come_from_the_environment_or_the_broker_s_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("username"), "broker\n").expect("a file");
        fs::write(folder.path().join("password"), "kept\n").expect("a file");
        let data_dir = folder.path().display().to_string();
        let told = |config: ClientConfig| {
            let Credentials { username, password } = config.credentials;
            (username, password.expose().to_owned())
        };
        let found = load(&["--data-dir", &data_dir], &[HOME]).expect("settings");
        assert_eq!(told(found), ("broker".into(), "kept".into()));
        let flags = ["--data-dir", &data_dir, "--username", "ada"];
        let found = load(&flags, &[HOME, PASSWORD]).expect("settings");
        assert_eq!(told(found), ("ada".into(), "word".into()));
    }

    #[test]
    fn the_password_of_this_machine_is_not_told_to_others() {
        for broker in ["https://example.org", "http://127.0.0.1.example.org"] {
            let error = load(&["--broker", broker, "--username", "ada"], &[HOME]);
            let error = error.expect_err("no password");
            assert_eq!(error.setting, "COMPOSE_BROKER_PASSWORD", "{error}");
            assert!(error.reason.contains("another machine"), "{error}");
        }
    }

    #[test]
    fn names_lie_where_the_system_wants_them() {
        let state = |variables: &[(&str, &str)]| {
            let variables = [variables, &[PASSWORD]].concat();
            let config = load(&["--username", "ada"], &variables);
            config.map(|config| config.state.display().to_string())
        };
        let told = state(&[HOME]).expect("a file");
        assert_eq!(told, "/home/ada/.local/state/compose-broker/client.json");
        let told = state(&[HOME, ("XDG_STATE_HOME", "/state")]).expect("a file");
        assert_eq!(told, "/state/compose-broker/client.json");
        let relative = [HOME, ("XDG_STATE_HOME", "state")];
        assert!(state(&relative).expect("a file").starts_with("/home/ada"));
        let error = state(&[]).expect_err("no home");
        assert_eq!(error.setting, "COMPOSE_BROKER_STATE");
    }

    #[test]
    fn a_broker_s_own_variable_is_told_of_where_the_client_s_is_missing() {
        let listen = ("COMPOSE_BROKER_LISTEN", "127.0.0.1:9000");
        let hint = |flags: &[&str], variables: &[(&str, &str)]| {
            let flags = [&["--username", "ada"], flags].concat();
            let variables = [variables, &[HOME, PASSWORD]].concat();
            load(&flags, &variables).expect("settings").hint
        };
        assert_eq!(hint(&[], &[]), None);
        assert_eq!(hint(&["-b", "http://127.0.0.1:9000"], &[listen]), None);
        let told = hint(&[], &[listen]).expect("a hint");
        assert!(told.contains("COMPOSE_BROKER_URL"), "{told}");
    }

    #[test]
    fn an_empty_path_is_refused_by_its_setting_s_name() {
        for (flag, setting) in [
            ("--data-dir", "COMPOSE_BROKER_DATA_DIR"),
            ("--ca", "COMPOSE_BROKER_CA"),
            ("--state", "COMPOSE_BROKER_STATE"),
        ] {
            let error = load(&["--username", "ada", flag, ""], &[HOME, PASSWORD]);
            let error = error.expect_err(setting).to_string();
            assert_eq!(error, format!("{setting}: is empty"));
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused_without_being_repeated() {
        for broker in [
            "broker",
            "ftp://x",
            "http://ada:s3cret@x",
            "http://ada@x",
            "https://x/?password=s3cret",
        ] {
            let flags = ["--username", "ada", "--broker", broker];
            let error = load(&flags, &[HOME, PASSWORD]).expect_err(broker);
            assert_eq!(error.setting, "COMPOSE_BROKER_URL", "{broker}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let flags = ["--username", "ada", "--broker", "https://x.org/broker/"];
        let config = load(&flags, &[HOME, PASSWORD]).expect("settings");
        assert_eq!(config.broker.as_str(), "https://x.org/broker");
        assert!(!config.is_in_the_open());
        for (broker, open) in [("http://x.org", true), ("http://[::1]:80", false)] {
            let flags = ["--username", "ada", "--broker", broker];
            let config = load(&flags, &[HOME, PASSWORD]).expect("settings");
            assert_eq!(config.is_in_the_open(), open, "{broker}");
        }
    }
}
