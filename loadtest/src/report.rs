//! `RESULTS.md`: the measured part of it, family by family, between markers. What people wrote around them stays.

use std::{
    fmt::Write as _,
    fs, io,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    bars::{Bar, Side},
    scenarios::{Family, Figure},
};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// A figure over all runs.
pub struct Row {
    /// Where it belongs.
    pub family: Family,
    /// The first run's figure: label, unit, bar.
    pub figure: Figure,
    /// One value a run.
    pub values: Vec<f64>,
    /// One value a run, where it is a rate.
    pub walls: Vec<f64>,
    /// Bare writes per CPU second just before each run.
    pub bare_writes: Vec<f64>,
    /// What the bare server gave in the same minute, one value a run where it was measured.
    pub bare: Vec<f64>,
}

impl Row {
    /// The median of the runs.
    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    /// The median of the ratios to the bare server, run by run.
    pub fn ratio(&self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .values
            .iter()
            .zip(&self.bare)
            .map(|(value, bare)| value / bare)
            .collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }
}

/// The bar and what became of it.
fn verdict(bar: Option<Bar>, value: f64) -> String {
    let Some(bar) = bar else { return "—".to_owned() };
    let side = match bar.side {
        Side::AtLeast => "≥",
        Side::AtMost => "≤",
    };
    let word = if bar.reached(value) {
        "reached"
    } else {
        "**missed**"
    };
    format!("{side} {}: {word} (× {:.2})", number(bar.at), bar.times(value))
}

/// The middle value; of an even number, the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// What the figures were measured on and with.
pub struct Context {
    /// The command line to repeat it.
    pub command: String,
    /// Runs of each scenario.
    pub runs: usize,
    /// The machine, in a few words.
    pub machine: String,
    /// What was run.
    pub software: String,
    /// UTC, to the minute.
    pub date: String,
}

impl Context {
    /// Asks the machine.
    pub fn gather(command: String, runs: usize, redis: &Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown CPU", |(_, name)| name.trim());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let redis = said_by(Command::new(redis).arg("--version"));
        let redis = redis
            .split_whitespace()
            .find_map(|word| word.strip_prefix("v="))
            .unwrap_or("?")
            .to_owned();
        let commit = said_by(Command::new("git").args(["describe", "--always", "--dirty"]));
        Self {
            command,
            runs,
            machine: format!("{cores} cores of {model}, Linux {}", kernel.trim()),
            software: format!("commit {}, Redis {redis}", commit.trim()),
            date: utc(SystemTime::now()),
        }
    }
}

fn said_by(command: &mut Command) -> String {
    command
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// `2026-03-01 14:05 UTC`.
fn utc(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400: the leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3_600,
        rest % 3_600 / 60
    )
}

/// A number as a reader wants it: three figures or so, thousands apart.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let digits = if value.abs() < 10.0 { 2 } else { 1 };
        return format!("{value:.digits$}");
    }
    let plain = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The section of one family.
pub fn section(family: Family, rows: &[Row], notes: &[String], context: &Context) -> String {
    let (title, about) = family.about();
    let mut out = format!("## {title}\n\n{about}\n\n```\n{}\n```\n\n", context.command);
    let Context {
        machine,
        software,
        date,
        runs,
        ..
    } = context;
    let bare: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.bare_writes.iter().copied())
        .collect();
    let _ = writeln!(
        out,
        "{date}; {machine}; {software}; medians of {runs} interleaved runs; a bare write: {} /CPU s.\n",
        number(median(&bare))
    );
    let beside = rows.iter().any(|row| !row.bare.is_empty());
    out.push_str("| work | median | min – max | bar |");
    out.push_str(if beside {
        " bare server | ratio to it |"
    } else {
        ""
    });
    out.push_str(" by the clock, /s | × bare write |\n|---|---|---|---|");
    out.push_str(if beside {
        "---|---|---|---|\n"
    } else {
        "---|---|\n"
    });
    for row in rows {
        let min = row.values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = row.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let Row { figure, .. } = row;
        let _ = write!(
            out,
            "| {} | {} {} | {} – {} | {} |",
            figure.label,
            number(row.median()),
            figure.unit,
            number(min),
            number(max),
            verdict(figure.bar, row.median()),
        );
        match row.ratio() {
            Some(ratio) => {
                let bar = figure.bar.and_then(Bar::on_ratio);
                let judged = bar.map_or(String::new(), |bar| format!("; {}", verdict(Some(bar), ratio)));
                let _ = write!(
                    out,
                    " {} | {}{judged} |",
                    number(median(&row.bare)),
                    number(ratio)
                );
            }
            None if beside => out.push_str(" — | — |"),
            None => {}
        }
        let wall = if row.walls.is_empty() {
            "—".to_owned()
        } else {
            number(median(&row.walls))
        };
        let writes = match figure.per_cpu {
            true => number(row.median() / median(&row.bare_writes)),
            false => "—".to_owned(),
        };
        let _ = writeln!(out, " {wall} | {writes} |");
    }
    for note in notes {
        let _ = writeln!(out, "\nNote: {note}.");
    }
    out
}

/// Puts sections into `text`, each in the place of the family's last one.
pub fn splice(text: &str, sections: &[(Family, String)]) -> String {
    let (before, measured, after) = match between(text, BEGIN, END) {
        Some((before, measured, after)) => (before.to_owned(), measured, after.to_owned()),
        None => (format!("{}\n\n", text.trim_end()), "", "\n".to_owned()),
    };
    let mut out = format!("{}{BEGIN}\n", before.trim_start_matches('\n'));
    for &family in Family::ALL {
        let (begin, end) = markers(family);
        let new = sections
            .iter()
            .find(|(of, _)| *of == family)
            .map(|(_, section)| section.as_str());
        let Some(section) = new.or_else(|| between(measured, &begin, &end).map(|(_, old, _)| old)) else {
            continue;
        };
        let _ = write!(out, "{begin}\n{}\n{end}\n", section.trim());
    }
    out.push_str(END);
    out + &after
}

fn markers(family: Family) -> (String, String) {
    let name = family.as_str();
    (
        format!("<!-- bench:{name}:begin -->"),
        format!("<!-- bench:{name}:end -->"),
    )
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(begin)?;
    let (inside, after) = rest.split_once(end)?;
    Some((before, inside, after))
}

/// Updates the file at `path`, or makes it.
///
/// # Errors
/// It cannot be read or written.
pub fn update(path: &Path, sections: &[(Family, String)]) -> io::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Results\n".to_owned(),
        Err(error) => return Err(error),
    };
    fs::write(path, splice(&text, sections))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_new_section_takes_the_place_of_its_familys_last_one_only() {
        let first = splice(
            "# Results\n\nBy hand.\n",
            &[
                (Family::Commands, "commands 1".to_owned()),
                (Family::Fanout, "fanout 1".to_owned()),
            ],
        );
        let edited = first.replace("By hand.", "By another hand.") + "\nBelow.\n";
        let second = splice(&edited, &[(Family::Fanout, "fanout 2\n".to_owned())]);
        assert!(
            second.contains("By another hand.") && second.ends_with("\nBelow.\n"),
            "{second}"
        );
        assert!(
            second.contains("fanout 2") && !second.contains("fanout 1"),
            "{second}"
        );
        assert!(
            second.find("fanout 2") < second.find("commands 1"),
            "in the order of the families"
        );
        assert_eq!(splice(&second, &[]), second);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_772_323_199), "2026-02-28 23:59 UTC");
        assert_eq!(at(1_772_323_200), "2026-03-01 00:00 UTC");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(0.4567), "0.46");
        assert_eq!(number(45.67), "45.7");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(-12_345.0), "-12,345");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
