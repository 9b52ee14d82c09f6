//! What a process has used, read from `/proc`.

use std::fs;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Clock ticks in a second, as `/proc` counts processor time: 100 on every Linux that runs here.
const TICKS: f64 = 100.0;
/// How often a process is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Processor seconds, user and system together, of all threads that a process has or had.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks = |field: usize| -> Result<f64> {
        Ok(stat.get(field).context("/proc/…/stat is shorter than it should be")?.parse()?)
    };
    // Fields 14 and 15 by proc(5), of which the first two are cut off.
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// How many pages of memory the system gave a process, clearing each; those of a file that were in memory already count too.
fn page_faults(pid: u32) -> Result<u64> {
    // Field 10 by proc(5).
    Ok(stat(pid)?.get(7).context("/proc/…/stat is shorter than it should be")?.parse()?)
}

/// What a page of memory costs the first time that it is written to, processor seconds: the system clears it, and on a
/// virtual machine the host may have to find it first.
pub fn fresh_page_s() -> Result<f64> {
    const PAGE: usize = 4_096;
    let (own, pages) = (std::process::id(), 1 << 18);
    let before = cpu_seconds(own)?;
    let mut memory = vec![0_u8; pages * PAGE];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
    Ok((cpu_seconds(own)? - before) / pages as f64)
}

/// The fields of `/proc/PID/stat` from the third on, behind the name, which may have blanks in it.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let (_, behind) = text.rsplit_once(')').context("/proc/…/stat has no name in it")?;
    Ok(behind.split_whitespace().map(str::to_owned).collect())
}

/// The most memory that a process has held, MB; `None` when it holds none any more.
pub fn peak_rss_mb(pid: u32) -> Option<f64> {
    memory_mb(pid, "VmHWM:")
}

/// The memory that a process holds, MB.
pub fn rss_mb(pid: u32) -> Option<f64> {
    memory_mb(pid, "VmRSS:")
}

fn memory_mb(pid: u32, what: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1_024.0 / 1_000_000.0)
}

/// What a process used in its whole life.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu_s: f64,
    pub peak_rss_mb: f64,
    pub page_faults: u64,
    pub wall_s: f64,
    pub status: ExitStatus,
}

/// Waits for a process to end by itself; `tend` is called meanwhile, and its error ends the process, as a time-out does.
pub fn watch(child: &mut Child, timeout: Duration, mut tend: impl FnMut(Duration) -> Result<()>) -> Result<Usage> {
    let outcome = wait(child, timeout, &mut tend);
    if outcome.is_err() {
        // It may have ended meanwhile, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn wait(child: &mut Child, timeout: Duration, tend: &mut dyn FnMut(Duration) -> Result<()>) -> Result<Usage> {
    let (pid, begun) = (child.id(), Instant::now());
    let mut peak_rss_mb = 0.0;
    loop {
        if let Some(now) = self::peak_rss_mb(pid) {
            peak_rss_mb = now;
        }
        // One that has ended and was not waited for yet still says what it used.
        if stat(pid)?.first().is_some_and(|state| state == "Z") {
            let (cpu_s, wall_s) = (cpu_seconds(pid)?, begun.elapsed().as_secs_f64());
            return Ok(Usage { cpu_s, peak_rss_mb, page_faults: page_faults(pid)?, wall_s, status: child.wait()? });
        }
        if begun.elapsed() > timeout {
            bail!("it was not done after {} s", timeout.as_secs());
        }
        tend(begun.elapsed())?;
        thread::sleep(EVERY);
    }
}
