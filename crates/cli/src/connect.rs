//! How a cluster is reached: flags, then environment, then manifest, then etcdctl's defaults; and
//! what its errors mean to an administrator.

use crate::args::ConnectArgs;
use crate::configured;
use crate::failure::{Code, Failure};
use crate::manifest::{KUBEADM, Manifest};
use crate::time::parse_duration;
use rekindle_agent::config::Cluster;
use rekindle_client::{
    Client, Config, Credentials, DialFault, Error, EtcdFault, FileRole, Timeouts, TlsFault,
    TlsFiles,
};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// A cluster that can be called.
pub(crate) struct Connection {
    pub client: Client,
    /// All members are meant, not only the endpoints that are named.
    pub all_members: bool,
}

/// Reads variables of the environment; tests have one of their own.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn connect(args: &ConnectArgs) -> Result<Connection, Failure> {
    let configured = configured::cluster();
    let manifest = manifest(args, &environment, configured)?;
    let (config, all_members) = config(args, &environment, manifest.as_ref(), configured)?;
    let client = Client::new(config).map_err(explain)?;
    Ok(Connection { client, all_members })
}

/// What a configuration says of a cluster can be used: its files are there, and go together.
pub(crate) fn check(cluster: &Cluster) -> Result<(), Failure> {
    let args = ConnectArgs::default();
    let manifest = manifest(&args, &environment, Some(cluster))?;
    let (config, _) = config(&args, &environment, manifest.as_ref(), Some(cluster))?;
    Client::new(config).map(drop).map_err(explain)
}

/// The manifest that is asked for, or kubeadm's where nothing else says where the cluster is.
fn manifest(
    args: &ConnectArgs,
    env: Env<'_>,
    configured: Option<&Cluster>,
) -> Result<Option<Manifest>, Failure> {
    let configured_path = configured.and_then(|cluster| cluster.manifest.as_ref());
    if let Some(path) = args.from_manifest.as_ref().or(configured_path) {
        return Manifest::read(path).map(Some);
    }
    if configured.is_some() {
        return Ok(None);
    }
    let named = args.endpoints.is_some() || variable(env, "ENDPOINTS").is_some();
    let kubeadm = Path::new(KUBEADM);
    let implied = !named && kubeadm.exists();
    implied.then(|| Manifest::read(kubeadm)).transpose()
}

/// A variable of the environment; an empty one is none.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Ours goes before etcdctl's.
pub(crate) fn variable(env: Env<'_>, name: &str) -> Option<String> {
    env(&format!("REKINDLE_{name}")).or_else(|| env(&format!("ETCDCTL_{name}")))
}

fn config(
    args: &ConnectArgs,
    env: Env<'_>,
    manifest: Option<&Manifest>,
    configured: Option<&Cluster>,
) -> Result<(Config, bool), Failure> {
    let environment = env;
    // What is meant for one cluster is no good for another.
    let env: Env<'_> = if configured.is_some() { &|_| None } else { env };
    if args.discovery_srv.is_some() || variable(env, "DISCOVERY_SRV").is_some() {
        return Err(Failure::usage("--discovery-srv is not supported")
            .remedy("give the endpoints themselves: --endpoints"));
    }
    let of_configured = configured.map(|cluster| cluster.endpoints.join(","));
    let of_configured = of_configured.filter(|endpoints| !endpoints.is_empty());
    let named = args.endpoints.clone().or_else(|| variable(env, "ENDPOINTS"));
    // A manifest knows one member; its certificates are good for all. So does a configuration as often as not.
    let all_members =
        args.cluster || (named.is_none() && (manifest.is_some() || of_configured.is_some()));
    let endpoints = named.or(of_configured);
    let endpoints = endpoints
        .or_else(|| manifest.and_then(manifest_endpoint))
        .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let files = configured.and_then(Cluster::tls).unwrap_or_default();
    let path = |flag: &Option<PathBuf>, file: Option<PathBuf>, name: &str, listed: &str| {
        let given = flag.clone().or(file);
        let given = given.or_else(|| variable(env, name).map(PathBuf::from));
        given.or_else(|| manifest?.path_flag(listed))
    };
    let tls = TlsFiles {
        ca_cert: path(&args.cacert, files.ca_cert, "CACERT", "trusted-ca-file"),
        cert: path(&args.cert, files.cert, "CERT", "cert-file"),
        key: path(&args.key, files.key, "KEY", "key-file"),
        insecure_skip_verify: args.insecure_skip_tls_verify
            || variable(env, "INSECURE_SKIP_TLS_VERIFY").is_some_and(|value| value == "true"),
    };
    let has_tls = tls.ca_cert.is_some() || tls.cert.is_some() || tls.insecure_skip_verify;
    let credentials = match configured.filter(|_| args.user.is_none()) {
        Some(cluster) => cluster.credentials(environment).map_err(Failure::usage)?,
        None => credentials(args, env)?,
    };
    let config = Config {
        tls: (has_tls || tls.key.is_some()).then_some(tls),
        credentials,
        timeouts: timeouts(args, env)?,
        ..Config::new([endpoints])
    };
    Ok((config, all_members))
}

/// The URL at which the member serves this host itself, else the first.
fn manifest_endpoint(manifest: &Manifest) -> Option<String> {
    let listed = manifest.flag("listen-client-urls").or(manifest.flag("advertise-client-urls"))?;
    let urls: Vec<_> = listed.split(',').map(str::trim).collect();
    let is_local = |url: &&&str| url.contains("//127.") || url.contains("//localhost");
    urls.iter().find(is_local).or(urls.first()).map(ToString::to_string)
}

fn credentials(args: &ConnectArgs, env: Env<'_>) -> Result<Option<Credentials>, Failure> {
    let Some(user) = args.user.clone().or_else(|| variable(env, "USER")) else { return Ok(None) };
    let mut password = args.password.clone().or_else(|| variable(env, "PASSWORD"));
    if password.is_none() && !user.contains(':') && std::io::stdin().is_terminal() {
        let asked = rpassword::prompt_password(format!("Password of {user}: "));
        let failed = |error| Failure::new(Code::Failed, format!("reading the password: {error}"));
        password = Some(asked.map_err(failed)?);
    }
    Credentials::from_flags(&user, password.as_deref()).map(Some).map_err(explain)
}

fn timeouts(args: &ConnectArgs, env: Env<'_>) -> Result<Timeouts, Failure> {
    let default = Timeouts::default();
    let time = |flag: Option<Duration>, name: &str, default| match flag {
        Some(given) => Ok(given),
        None => variable(env, name).map_or(Ok(default), |text| {
            parse_duration(&text)
                .map_err(|fault| Failure::usage(format!("ETCDCTL_{name}: {fault}")))
        }),
    };
    Ok(Timeouts {
        dial: time(args.dial_timeout, "DIAL_TIMEOUT", default.dial)?,
        command: time(args.command_timeout, "COMMAND_TIMEOUT", default.command)?,
        stall: time(args.stall_timeout, "STALL_TIMEOUT", default.stall)?,
        keepalive_time: time(args.keepalive_time, "KEEPALIVE_TIME", default.keepalive_time)?,
        keepalive_timeout: time(
            args.keepalive_timeout,
            "KEEPALIVE_TIMEOUT",
            default.keepalive_timeout,
        )?,
        ..default
    })
}

/// What an error of the client means, and what to do about it.
pub(crate) fn explain(error: Error) -> Failure {
    let failure = Failure::new(code(&error), error.to_string());
    match remedy(&error) {
        Some(remedy) => failure.remedy(remedy),
        None => failure,
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::Endpoint { .. }
        | Error::NoEndpoints
        | Error::NoPassword { .. }
        | Error::HalfIdentity { .. } => Code::Usage,
        error if error.is_transient() => Code::Transient,
        _ => Code::Failed,
    }
}

fn remedy(error: &Error) -> Option<String> {
    let text = match error {
        Error::Endpoint { .. } | Error::NoEndpoints => {
            "give --endpoints as etcdctl takes them, such as https://10.0.0.1:2379"
        }
        Error::NoPassword { .. } => "give --user NAME:PASSWORD, or ETCDCTL_PASSWORD",
        Error::HalfIdentity { .. } => "give both --cert and --key, or neither",
        Error::KeyMismatch { .. } => "give the --key that belongs to --cert",
        Error::File { role, .. } => {
            let flag = flag(*role);
            return Some(format!(
                "check {flag}: it must name a PEM file that this user may read (kubeadm keeps them \
                 in /etc/kubernetes/pki/etcd, readable by root)"
            ));
        }
        Error::Unreachable { fault, .. } => dial_remedy(fault),
        Error::Tls { fault, .. } => return tls_remedy(fault).map(str::to_owned),
        Error::Etcd { fault, .. } => return etcd_remedy(*fault).map(str::to_owned),
        Error::Stalled { .. } => {
            "look at that member's disk and network; --stall-timeout allows more, and with several \
             --endpoints another member is tried"
        }
        Error::Deadline { .. } => {
            "look whether the cluster has a leader (etcdctl endpoint status); --command-timeout \
             allows more, and without a leader rekindle save --without-quorum takes what one member \
             has"
        }
        Error::AllFailed { failures } => return failures.iter().find_map(remedy),
        _ => return None,
    };
    Some(text.to_owned())
}

fn flag(role: FileRole) -> &'static str {
    match role {
        FileRole::CaCert => "--cacert",
        FileRole::Cert => "--cert",
        FileRole::Key => "--key",
    }
}

fn dial_remedy(fault: &DialFault) -> &'static str {
    match fault {
        DialFault::UnknownHost { .. } => "check the host name in --endpoints",
        DialFault::Refused => {
            "check address and port in --endpoints, and that etcd is running there"
        }
        DialFault::TimedOut(_) => {
            "check the address in --endpoints, firewalls, and that etcd is running there"
        }
        _ => "check --endpoints and the network",
    }
}

fn tls_remedy(fault: &TlsFault) -> Option<&'static str> {
    Some(match fault {
        TlsFault::UnknownAuthority { .. } => {
            "give the authority that has signed the server's certificate: --cacert (kubeadm: \
             /etc/kubernetes/pki/etcd/ca.crt)"
        }
        TlsFault::Expired { .. } => {
            "renew the server's certificate (kubeadm certs renew etcd-server), or mend a wrong clock"
        }
        TlsFault::NotYetValid { .. } => "mend the clock of this host or of the server",
        TlsFault::WrongName { .. } => {
            "use an address in --endpoints that the certificate names, or issue one with this address"
        }
        TlsFault::ClientCertificateWanted => {
            "give --cert and --key (kubeadm: /etc/kubernetes/pki/etcd/healthcheck-client.crt and .key)"
        }
        TlsFault::ClientCertificateRefused { .. } => {
            "give --cert and --key that the server's authority has signed and that have not expired"
        }
        TlsFault::PeerIsPlain => "write http:// in --endpoints: the server does not speak TLS",
        TlsFault::PeerIsTls => "write https:// in --endpoints: the server speaks TLS",
        _ => return None,
    })
}

fn etcd_remedy(fault: EtcdFault) -> Option<&'static str> {
    Some(match fault {
        EtcdFault::AuthFailed => "check --user and --password",
        EtcdFault::PermissionDenied => {
            "a snapshot needs a user with the role root: etcdctl user grant-role NAME root"
        }
        EtcdFault::UserEmpty => {
            "authentication is on: give --user, or a client certificate of a user"
        }
        EtcdFault::NoLeader | EtcdFault::TimedOut => {
            "the cluster has no leader: look at its members (etcdctl endpoint status); \
             rekindle save --without-quorum takes what one member has"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn configured(
        args: &ConnectArgs,
        env: &[(&str, &str)],
        manifest: Option<&Manifest>,
    ) -> Result<(Config, bool), Failure> {
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        config(args, &|name| env.get(name).map(ToString::to_string), manifest, None)
    }

    fn args() -> ConnectArgs {
        ConnectArgs::default()
    }

    #[test]
    fn etcdctls_defaults() {
        let (config, all) = configured(&args(), &[], None).unwrap();
        assert_eq!((config.endpoints, all), (vec!["127.0.0.1:2379".to_owned()], false));
        assert!(config.tls.is_none() && config.credentials.is_none());
    }

    #[test]
    fn flags_go_before_our_environment_and_that_before_etcdctls() {
        let env = [("ETCDCTL_ENDPOINTS", "a:1"), ("ETCDCTL_CACERT", "/ca")];
        let endpoints =
            |args: &ConnectArgs, env: &[_]| configured(args, env, None).unwrap().0.endpoints;
        assert_eq!(endpoints(&args(), &env), ["a:1"]);
        let both = [env[0], env[1], ("REKINDLE_ENDPOINTS", "b:1")];
        assert_eq!(endpoints(&args(), &both), ["b:1"]);
        let flag = ConnectArgs { endpoints: Some("c:1".to_owned()), ..args() };
        assert_eq!(endpoints(&flag, &both), ["c:1"]);
        let tls = configured(&flag, &both, None).unwrap().0.tls.unwrap();
        assert_eq!(tls.ca_cert, Some(PathBuf::from("/ca")));
    }

    #[test]
    fn times_come_from_the_environment_too() {
        let env = [("ETCDCTL_DIAL_TIMEOUT", "7s"), ("ETCDCTL_COMMAND_TIMEOUT", "1m")];
        let timeouts = configured(&args(), &env, None).unwrap().0.timeouts;
        assert_eq!(timeouts.dial, Duration::from_secs(7));
        assert_eq!(timeouts.command, Duration::from_secs(60));
        let bad = configured(&args(), &[("ETCDCTL_DIAL_TIMEOUT", "soon")], None).unwrap_err();
        assert_eq!(bad.code, Code::Usage);
    }

    #[test]
    fn a_manifest_gives_endpoint_and_certificates_and_means_all_members() {
        let yaml = "
kind: Pod
spec:
  containers:
  - name: etcd
    command: [etcd, '--listen-client-urls=https://10.0.0.1:2379,https://127.0.0.1:2379',
              --trusted-ca-file=/pki/ca.crt, --cert-file=/pki/server.crt, --key-file=/pki/server.key]
    volumeMounts: [{mountPath: /pki, name: pki}]
  volumes: [{name: pki, hostPath: {path: /etc/pki}}]
";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etcd.yaml");
        std::fs::write(&path, yaml).unwrap();
        let manifest = Manifest::read(&path).unwrap();
        let (config, all) = configured(&args(), &[], Some(&manifest)).unwrap();
        assert_eq!((config.endpoints, all), (vec!["https://127.0.0.1:2379".to_owned()], true));
        let tls = config.tls.unwrap();
        assert_eq!(tls.ca_cert, Some(PathBuf::from("/etc/pki/ca.crt")));
        assert_eq!(tls.key, Some(PathBuf::from("/etc/pki/server.key")));
        let flag = ConnectArgs { endpoints: Some("c:1".to_owned()), ..args() };
        let (config, all) = configured(&flag, &[], Some(&manifest)).unwrap();
        assert_eq!((config.endpoints, all), (vec!["c:1".to_owned()], false));
    }

    #[test]
    fn discovery_is_refused_with_the_way_out() {
        let flag = ConnectArgs { discovery_srv: Some("example.com".to_owned()), ..args() };
        let refused = configured(&flag, &[], None).unwrap_err();
        assert_eq!(refused.code, Code::Usage);
        assert!(refused.remedy.unwrap().contains("--endpoints"));
    }
}
