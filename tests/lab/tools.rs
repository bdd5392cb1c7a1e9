//! Tools above the packet filters, and what the machine has logged: hidden in every lab, until a test installs them.
//!
//! edgeallow takes them whenever they are there, and what the machine has installed must not decide what a test of
//! iptables sees.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::Lab;

/// The programs that edgeallow knows such a tool or a web server by.
const HIDDEN: [&str; 5] = ["fail2ban-client", "apachectl", "apache2ctl", "httpd", "nginx"];

impl Lab {
    pub(super) fn hide_tools(&self) {
        self.set_mode(&HIDDEN, 0o644);
    }

    /// Empties the folders of `/var/log`: edgeallow reads what is there, and the machine's past is none of a test's.
    pub(super) fn hide_logs(&self) {
        self.files(|| without_files(Path::new("/var/log")));
    }

    /// Brings hidden programs back.
    ///
    /// # Panics
    /// Where the machine doesn't have one of them, naming the Debian package.
    pub fn install(&self, programs: &[&str], package: &str) {
        let found = self.set_mode(programs, 0o755);
        assert_eq!(found, programs.len(), "not installed on this machine: apt-get install {package}");
    }

    fn set_mode(&self, programs: &[&str], mode: u32) -> usize {
        self.files(|| {
            let mut found = 0;
            for program in programs {
                let paths = ["/usr/bin", "/usr/sbin"].map(|d| PathBuf::from(d).join(program));
                if let Some(path) = paths.into_iter().find(|p| p.exists()) {
                    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
                    found += 1;
                }
            }
            Ok(found)
        })
    }
}

fn without_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            without_files(&entry.path())?;
            continue;
        }
        // The machine's own services may have taken it away by now.
        fs::remove_file(entry.path()).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    }
    Ok(())
}
