//! Network namespaces, one for each replica: a second way to cut it off, by the kernel and not by
//! a proxy.
//!
//! Each replica has a pair of virtual devices, one end in its namespace and one outside, where its
//! ways listen. A cut drops every packet on that pair, so connections fall silent and the
//! kernel's own timers are at work. All this is Linux's, and takes root and `ip` and `iptables`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// A namespace with one replica in it. Dropping it removes it.
#[derive(Debug)]
pub struct Cell {
    name: String,
    device: String,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
    is_cut: AtomicBool,
}

impl Cell {
    /// Makes one for each replica, with names and addresses that nothing else here has.
    ///
    /// # Errors
    /// This user may not, or `ip` is not there.
    pub async fn make(replicas: u8) -> io::Result<Vec<Self>> {
        // 198.18.0.0/15 is for tests of networks (RFC 2544) and routed nowhere.
        let net: u8 = rand::random();
        let tag = u32::from(net) << 16 | std::process::id() & 0xffff;
        let mut cells = Vec::new();
        for id in 0..replicas {
            let cell = Self {
                name: format!("elea-{tag:x}-{id}"),
                device: format!("el{tag:x}-{id}"),
                outside: Ipv4Addr::new(198, 18, net, id * 4 + 1),
                inside: Ipv4Addr::new(198, 18, net, id * 4 + 2),
                is_cut: AtomicBool::new(false),
            };
            cell.build().await?;
            cells.push(cell);
        }
        Ok(cells)
    }

    async fn build(&self) -> io::Result<()> {
        let Self { name, device, outside, inside, .. } = self;
        let peer = format!("{device}p");
        for line in [
            format!("ip netns add {name}"),
            format!("ip link add {device} type veth peer name {peer} netns {name}"),
            format!("ip addr add {outside}/30 dev {device}"),
            format!("ip link set {device} up"),
            format!("ip -n {name} addr add {inside}/30 dev {peer}"),
            format!("ip -n {name} link set {peer} up"),
            format!("ip -n {name} link set lo up"),
        ] {
            run(&line).await?;
        }
        Ok(())
    }

    /// Where the replica listens.
    #[must_use]
    pub fn inside(&self) -> IpAddr {
        self.inside.into()
    }

    /// Where its ways are.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        self.outside.into()
    }

    /// A command that runs in there. `ip` replaces itself by it, so its process id is that of the
    /// program.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Drops all packets, or none. To say so twice changes nothing.
    ///
    /// # Errors
    /// `iptables` fails.
    pub async fn cut(&self, is_cut: bool) -> io::Result<()> {
        if self.is_cut.swap(is_cut, Ordering::Relaxed) == is_cut {
            return Ok(());
        }
        let change = if is_cut { "-I" } else { "-D" };
        let Self { name, device, .. } = self;
        for chain in ["INPUT -i", "OUTPUT -o"] {
            run(&format!("ip netns exec {name} iptables {change} {chain} {device}p -j DROP"))
                .await?;
        }
        Ok(())
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // The pair of devices goes with the namespace.
        let mut ip = Command::new("ip");
        let _ = ip.args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

async fn run(line: &str) -> io::Result<()> {
    let mut words = line.split(' ');
    let mut command = tokio::process::Command::new(words.next().unwrap_or_default());
    let done = command.args(words).stdin(Stdio::null()).output().await?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("{line}: {}", why.trim())))
}
