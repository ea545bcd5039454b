// SPDX-License-Identifier: Apache-2.0
//! Tells the container runtime of this node who connects pods: the CNI plugin and its configuration.
//!
//! The configuration is written last, and only when pods can be connected, because a node counts as
//! ready as soon as it is there. Every file is replaced by rename: the runtime watches the directory
//! and may start the plugin at any moment.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::AgentError;

/// Runtimes take the first file of the directory.
const CONFIGURATION: &str = "05-weir.conflist";
const PLUGIN: &str = "weir-cni";

/// Where the plugin and its configuration go.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Container runtime")]
pub struct CniArgs {
    /// Install the CNI plugin into this directory, usually /opt/cni/bin.
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Install the CNI configuration into this directory, usually /etc/cni/net.d.
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// The plugin to install; unless given, the `weir-cni` beside this program.
    #[arg(long, value_name = "FILE", requires = "cni_bin_dir")]
    pub cni_plugin: Option<PathBuf>,
    /// Do not run: remove the CNI configuration, so that no pod waits for an agent that does not
    /// come back. The plugin stays, for pods that are still to be removed.
    #[arg(long, requires = "cni_conf_dir")]
    pub remove_cni: bool,
}

impl CniArgs {
    /// What there is to install; tells where.
    pub(crate) fn install(&self, socket: &Path) -> Result<Option<String>, AgentError> {
        if let Some(directory) = &self.cni_bin_dir {
            let plugin = match &self.cni_plugin {
                Some(plugin) => plugin.clone(),
                None => beside()?,
            };
            let content = fs::read(&plugin).map_err(failed("read", &plugin))?;
            put(directory, PLUGIN, &content, 0o755)?;
        }
        let Some(directory) = &self.cni_conf_dir else {
            return Ok(None);
        };
        put(directory, CONFIGURATION, &configuration(socket), 0o644)?;
        Ok(Some(directory.join(CONFIGURATION).display().to_string()))
    }

    /// Takes the configuration away, if there is one.
    pub(crate) fn remove(&self) -> Result<(), AgentError> {
        let Some(directory) = &self.cni_conf_dir else {
            return Ok(());
        };
        let path = directory.join(CONFIGURATION);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// `cniVersion` is for runtimes that do not know `cniVersions`, which brings STATUS and GC.
fn configuration(socket: &Path) -> Vec<u8> {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "weir",
        "plugins": [{
            "type": PLUGIN,
            "socket": socket,
            "capabilities": {"portMappings": true},
        }],
    });
    format!("{list:#}\n").into_bytes()
}

fn beside() -> Result<PathBuf, AgentError> {
    let own = std::env::current_exe();
    let own = own.map_err(failed("find", Path::new("/proc/self/exe")))?;
    Ok(own.with_file_name(PLUGIN))
}

/// Replaces a file unless it is right already: each change has the runtime read the directory again.
fn put(directory: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), AgentError> {
    let path = directory.join(name);
    let right = fs::read(&path).is_ok_and(|found| found == content)
        && fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
    if right {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(failed("make", directory))?;
    // Neither a runtime nor a person takes a file of this name for a configuration.
    let new = directory.join(format!(".{name}.new"));
    write(&new, content, mode)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            failed("write", &path)(error)
        })
}

/// On disk before it gets its name: a machine that fails then must not keep an empty plugin.
fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[test]
    fn both_files_come_whole_and_the_configuration_goes() {
        let home = tempfile::tempdir().unwrap();
        let plugin = home.path().join("built");
        fs::write(&plugin, "program").unwrap();
        let args = CniArgs {
            cni_bin_dir: Some(home.path().join("opt/cni/bin")),
            cni_conf_dir: Some(home.path().join("net.d")),
            cni_plugin: Some(plugin.clone()),
            remove_cni: false,
        };
        let (bin, conf) = (home.path().join("opt/cni/bin"), home.path().join("net.d"));
        for content in ["program", "a newer program"] {
            fs::write(&plugin, content).unwrap();
            let place = args.install(Path::new("/run/weir/weir.sock")).unwrap();
            assert!(place.unwrap().ends_with("net.d/05-weir.conflist"));
            assert_eq!(fs::read_to_string(bin.join("weir-cni")).unwrap(), content);
        }
        let mode = fs::metadata(bin.join("weir-cni")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o755);
        let text = fs::read_to_string(conf.join("05-weir.conflist")).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["plugins"][0]["socket"], "/run/weir/weir.sock");
        assert_eq!((names(&bin).len(), names(&conf).len()), (1, 1));
        for _ in 0..2 {
            args.remove().unwrap();
            assert_eq!((names(&bin).len(), names(&conf).len()), (1, 0));
        }
    }

    #[test]
    fn nothing_is_installed_unless_asked_for() {
        let args = CniArgs::default();
        assert_eq!(args.install(Path::new("/x.sock")).unwrap(), None);
        args.remove().unwrap();
    }

    #[test]
    fn a_plugin_that_is_missing_leaves_no_configuration() {
        let home = tempfile::tempdir().unwrap();
        let args = CniArgs {
            cni_bin_dir: Some(home.path().join("bin")),
            cni_conf_dir: Some(home.path().join("net.d")),
            cni_plugin: Some(home.path().join("none")),
            remove_cni: false,
        };
        let error = args.install(Path::new("/x.sock")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        assert!(!home.path().join("net.d").exists());
    }
}
