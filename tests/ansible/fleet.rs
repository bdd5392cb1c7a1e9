//! A small fleet: a controller with ansible-core and three hosts of different kinds, each behind a wire and an sshd.
//!
//! Belongs here: making the hosts, the wires, keys and sshd, and running playbooks. Does not: what is expected of them.
//!
//! Everything of it is inside labs. Root's home is moved to `/var` there, so that neither the controller's ssh nor
//! Ansible's folders on the hosts are the machine's.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    above::fail2ban,
    conformance::{
        Kind,
        iptables::NFT,
        nftables::{CONFIGURATION, WITH_INCLUDE, administrators_rules},
        ufw::UFW,
    },
    lab::{CHANGED_IN_USR, Lab, Output, Rules, Tree},
};

/// The hosts in the inventory's order, and what guards each.
pub const HOSTS: [&str; 3] = ["nft1", "ufw2", "ipt3"];
/// Port 22 is taken by the lab's own listener.
const SSH_PORT: u16 = 2222;
/// The hosts' end of the wire to the controller.
const WIRE: &str = "manage";
const HOME: &str = "/var/root";
const FOLDER: &str = "/var/fleet";
/// A playbook over three hosts takes half a minute where nothing else is at work.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a run of a playbook came to.
pub struct Played {
    /// The run itself.
    pub output: Output,
    /// The counts of the recap by host and word: `changed`, `failed`, …
    pub recap: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Played {
    /// A count of the recap.
    pub fn count(&self, host: &str, word: &str) -> u32 {
        let line = self.recap.get(host).unwrap_or_else(|| panic!("{host} isn't in the recap: {:?}", self.output));
        *line.get(word).unwrap_or_else(|| panic!("no {word} in the recap of {host}: {:?}", self.output))
    }

    /// The hosts with something in this column.
    pub fn hosts_with(&self, word: &str) -> Vec<&str> {
        HOSTS.into_iter().filter(|h| self.recap.contains_key(*h) && self.count(h, word) > 0).collect()
    }

    /// Whether the run said this, on either stream: which of them, and how its lines break, is up to ansible-core.
    pub fn said(&self, words: &str) -> bool {
        let all = format!("{} {}", self.output.stdout, self.output.stderr);
        all.split_whitespace().collect::<Vec<_>>().join(" ").contains(words)
    }

    /// Every host was done, and there was nothing to change.
    pub fn expect_unchanged(&self) {
        assert_eq!(self.output.status, Some(0), "{:?}", self.output);
        assert!(HOSTS.iter().all(|h| self.count(h, "ok") > 0), "{:?}", self.output);
        assert!(self.hosts_with("changed").is_empty(), "something is changed again: {:?}", self.output);
    }

    /// Every host was done, and something was changed on each.
    pub fn expect_all_changed(&self) {
        assert_eq!(self.output.status, Some(0), "{:?}", self.output);
        assert_eq!(self.hosts_with("changed"), HOSTS, "{:?}", self.output);
    }
}

/// The controller and its hosts.
pub struct Fleet {
    controller: Lab,
    hosts: Vec<Lab>,
    environment: PathBuf,
}

impl Fleet {
    /// Makes all of it; `environment` is the name of a virtual environment that `packaging/ansible_env.sh` makes.
    ///
    /// # Panics
    /// Where something that it needs isn't there, naming it.
    pub fn new(environment: &str) -> Self {
        for (program, package) in [("/usr/sbin/sshd", "openssh-server"), ("/usr/bin/ssh-keygen", "openssh-client")] {
            assert!(Path::new(program).exists(), "{program} is not installed: apt-get install {package}");
        }
        let environment = self::environment(environment);
        let fleet =
            Self { controller: Lab::new(), hosts: vec![nftables(), ufw(), iptables_and_fail2ban()], environment };
        fleet.prepare_controller();
        for number in 1..=HOSTS.len() {
            fleet.connect(number);
            fleet.start_sshd(number);
        }
        fleet.write_inventory();
        fleet
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> &Lab {
        let at = HOSTS.iter().position(|h| *h == name).expect("one of the hosts");
        &self.hosts[at]
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = (&'static str, &Lab)> {
        HOSTS.into_iter().zip(&self.hosts)
    }

    /// The machine that Ansible runs on.
    pub fn controller(&self) -> &Lab {
        &self.controller
    }

    /// What must stay as it is in check mode: every rule, and every file but Ansible's own and Python's caches.
    pub fn picture(&self) -> Vec<(Rules, Tree)> {
        let of = |lab: &Lab| {
            let mut tree = lab.tree(&["/etc", "/var/lib/edgeallow", "/var/cache/edgeallow", CHANGED_IN_USR]);
            tree.retain(|path, _| !path.contains("/__pycache__"));
            (lab.rules(), tree)
        };
        self.hosts.iter().map(of).collect()
    }

    /// Runs a playbook of the collection, `edgeallow.edgeallow.NAME`.
    pub fn play(&self, name: &str, args: &[&str]) -> Played {
        let start = Instant::now();
        let playbook = format!("edgeallow.edgeallow.{name}");
        let output = self.ansible("ansible-playbook", &[&[playbook.as_str()], args].concat());
        println!("{name} {args:?} took {:?}", start.elapsed());
        let recap = recap_of(&output.stdout);
        let played = Played { output, recap };
        assert!(!played.said("[DEPRECATION WARNING]"), "the next ansible-core may refuse: {:?}", played.output);
        played
    }

    /// Runs a program of ansible-core on the controller, whatever comes of it.
    pub fn ansible(&self, program: &str, args: &[&str]) -> Output {
        let program = self.environment.join("bin").join(program).display().to_string();
        let command = self.controller.command([&[program.as_str()], args].concat()).patience(PATIENCE);
        command
            .env("HOME", HOME)
            .env("TMPDIR", format!("{FOLDER}/tmp"))
            .env("ANSIBLE_CONFIG", format!("{FOLDER}/ansible.cfg"))
            .env("ANSIBLE_HOME", format!("{FOLDER}/ansible"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .run()
    }

    fn prepare_controller(&self) {
        let lab = &self.controller;
        move_home(lab);
        lab.run(["mkdir", "-p", &format!("{FOLDER}/tmp")]);
        lab.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &format!("{FOLDER}/key")]);
        lab.write_file(
            &format!("{FOLDER}/ansible.cfg"),
            format!(
                "[defaults]
inventory = {FOLDER}/inventory.yml
collections_path = {FOLDER}/collections
remote_tmp = {HOME}/.ansible/tmp
retry_files_enabled = false
nocows = true
nocolor = true
interpreter_python = auto_silent
timeout = 120
deprecation_warnings = true
[ssh_connection]
pipelining = true
ssh_args = -F none -o UserKnownHostsFile={FOLDER}/known_hosts -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {FOLDER}/cp
"
            ),
        );
        // The collection as it would be published, without its links into the rest of the project.
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ansible");
        let built = format!("{FOLDER}/edgeallow-edgeallow-0.1.0.tar.gz");
        self.ansible("ansible-galaxy", &["collection", "build", source, "--output-path", FOLDER]).expect_ok();
        let to = format!("{FOLDER}/collections");
        self.ansible("ansible-galaxy", &["collection", "install", &built, "-p", &to, "--offline"]).expect_ok();
    }

    /// A wire between the controller and a host, made in their own namespaces: no end of it is ever the machine's.
    fn connect(&self, number: usize) {
        let host = &self.hosts[number - 1];
        let near = format!("m{number}");
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.controller.init()))
            .args(["ip", "link", "add", &near, "type", "veth", "peer", "name", WIRE, "netns"])
            .arg(host.init().to_string())
            .status();
        assert!(status.is_ok_and(|s| s.success()), "cannot connect the controller with {}", HOSTS[number - 1]);
        for (lab, interface, last) in [(&self.controller, near.as_str(), 1), (host, WIRE, 2)] {
            lab.run(["ip", "addr", "add", &format!("198.18.{number}.{last}/24"), "dev", interface]);
            lab.run(["ip", "link", "set", interface, "up"]);
        }
    }

    fn start_sshd(&self, number: usize) {
        let host = &self.hosts[number - 1];
        let (address, folder) = (format!("198.18.{number}.2"), "/run/sshd");
        let more = if number == 1 { "SetEnv SYSTEMD_OFFLINE=1\n" } else { "" };
        move_home(host);
        host.run(["mkdir", "-p", folder]);
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &format!("{folder}/host_key")]);
        host.write_file(&format!("{folder}/authorized_keys"), self.controller.read_file(&format!("{FOLDER}/key.pub")));
        host.write_file(
            &format!("{folder}/config"),
            format!(
                "ListenAddress {address}:{SSH_PORT}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n\
                 AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin prohibit-password\n\
                 PasswordAuthentication no\nSubsystem sftp internal-sftp\n{more}"
            ),
        );
        // It becomes a daemon, whose log is a file: it must not hold the pipes that this test reads from.
        let start = format!("/usr/sbin/sshd -f {folder}/config -E {folder}/log </dev/null >/dev/null 2>&1");
        let started = host.command(["sh", "-c", &start]).run();
        assert_eq!(started.status, Some(0), "sshd doesn't start: {}", host.read_file(&format!("{folder}/log")));
        // It opens its port after that.
        let begun = Instant::now();
        while host.run(["ss", "-Hltn", &format!("sport = :{SSH_PORT}")]).stdout.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "sshd doesn't listen: {}", host.read_file(&format!("{folder}/log")));
            sleep(Duration::from_millis(20));
        }
        let key = host.read_file(&format!("{folder}/host_key.pub"));
        let line = format!("[{address}]:{SSH_PORT} {key}");
        self.controller.feed(["tee", "-a", &format!("{FOLDER}/known_hosts")], &line);
    }

    /// One host gets the binary and a timer, one a package, and one has it already.
    ///
    /// No lab has a service manager; on the first host systemctl enables units all the same, as it is told so
    /// (`SYSTEMD_OFFLINE`). The second has systemd as its init program, which doesn't run: a container.
    fn write_inventory(&self) {
        let package = self.package();
        let mut text = format!(
            "all:\n  vars:\n    ansible_user: root\n    ansible_port: {SSH_PORT}\n    \
             ansible_ssh_private_key_file: {FOLDER}/key\n  hosts:\n"
        );
        let installs = [
            "edgeallow_artifact: /usr/local/bin/edgeallow\n      edgeallow_schedule: systemd".to_owned(),
            format!("edgeallow_artifact: {package}"),
            "edgeallow_path: /usr/local/bin/edgeallow\n      edgeallow_scheduled_arguments: [--offline]".to_owned(),
        ];
        for (at, (name, install)) in HOSTS.iter().zip(installs).enumerate() {
            text += &format!("    {name}:\n      ansible_host: 198.18.{}.2\n      {install}\n", at + 1);
        }
        self.controller.write_file(&format!("{FOLDER}/inventory.yml"), text);
        for name in &HOSTS[..2] {
            let host = self.host(name);
            host.run(["umount", "/usr/local/bin/edgeallow"]);
            host.run(["rm", "/usr/local/bin/edgeallow"]);
        }
    }

    /// The smallest .deb with the binary in it.
    fn package(&self) -> String {
        let (lab, tree) = (&self.controller, format!("{FOLDER}/deb"));
        lab.write_file(
            &format!("{tree}/DEBIAN/control"),
            "Package: edgeallow\nVersion: 0.1.0\nArchitecture: all\nMaintainer: lab <root@localhost>\nDescription: lab\n",
        );
        lab.run(["mkdir", "-p", &format!("{tree}/usr/bin")]);
        lab.run(["cp", "/usr/local/bin/edgeallow", &format!("{tree}/usr/bin/edgeallow")]);
        let deb = format!("{FOLDER}/edgeallow_0.1.0_all.deb");
        lab.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", &tree, &deb]);
        deb
    }
}

/// A virtual environment that `packaging/ansible_env.sh` makes.
///
/// # Panics
/// Where it isn't there, saying how to make it.
pub fn environment(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_edgeallow")).ancestors().nth(2).expect("a target folder");
    let all = target.join("ansible");
    let one = all.join(name);
    assert!(
        one.join("bin/ansible-playbook").exists(),
        "there is no ansible-core in {}: run packaging/ansible_env.sh {} test (make test does)",
        one.display(),
        all.display()
    );
    one
}

/// The counts in the recap at the end of a run.
fn recap_of(stdout: &str) -> BTreeMap<String, BTreeMap<String, u32>> {
    let lines = stdout.lines().skip_while(|l| !l.starts_with("PLAY RECAP")).skip(1);
    let parsed = lines.filter_map(|line| {
        let (host, counts) = line.split_once(':')?;
        let counts = counts.split_whitespace().filter_map(|c| {
            let (word, number) = c.split_once('=')?;
            Some((word.to_owned(), number.parse().ok()?))
        });
        Some((host.trim().to_owned(), counts.collect()))
    });
    parsed.collect()
}

/// Root's home in a lab, by the book of users too: that is where ssh looks, whatever the environment says.
fn move_home(lab: &Lab) {
    lab.files(|| {
        let users = fs::read_to_string("/etc/passwd")?.replace(":/root:", &format!(":{HOME}:"));
        fs::write("/etc/passwd", users)?;
        fs::create_dir_all(HOME)
    });
}

fn nftables() -> Lab {
    let lab = Lab::new();
    WITH_INCLUDE.setup(&lab);
    let own = "iif \"lo\" accept";
    let rules = administrators_rules().replace(own, &format!("{own}\n        iifname \"{WIRE}\" accept"));
    lab.write_file(CONFIGURATION, rules);
    WITH_INCLUDE.boot(&lab);
    lab
}

fn ufw() -> Lab {
    let lab = Lab::new();
    UFW.setup(&lab);
    lab.run(["ln", "-sfn", "/lib/systemd/systemd", "/usr/sbin/init"]);
    // Ansible goes by the program's name, and looks at what is installed where that is a shell's.
    lab.write_file("/run/init-is", "sh\n");
    lab.run(["mount", "--bind", "/run/init-is", "/proc/1/comm"]);
    lab.run(["ufw", "allow", "in", "on", WIRE]);
    lab
}

fn iptables_and_fail2ban() -> Lab {
    let lab = Lab::new();
    NFT.setup(&lab);
    lab.run(["iptables", "-I", "INPUT", "-i", WIRE, "-j", "ACCEPT"]);
    fail2ban::install(&lab, fail2ban::JAILS);
    fail2ban::start(&lab);
    lab
}
