//! What became of the runs, for people: lines, and a table that RESULTS.md may take.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs, io,
    path::Path,
};

use super::checker::{Figure, Report};
use crate::report::number;

const BEGIN: &str = "<!-- chaos:begin -->";
const END: &str = "<!-- chaos:end -->";

/// The command line to repeat it.
pub fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p roomgate-loadtest -- {}", args.join(" "))
}

fn figure(figure: &Figure) -> String {
    let Figure {
        what,
        times,
        worst,
        unit,
        at_most,
    } = figure;
    let times = match times {
        1 => String::new(),
        times => format!(", the worst of {times}"),
    };
    let bar = at_most.map_or(String::new(), |bar| format!(" (at most {})", number(bar)));
    let space = if unit.is_empty() { "" } else { " " };
    format!("{what}: {}{space}{unit}{times}{bar}", number(*worst))
}

/// A run in a few lines.
pub fn told(report: &Report) -> String {
    let mut out = String::new();
    for report in &report.figures {
        let _ = writeln!(out, "  {}", figure(report));
    }
    for note in &report.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    if !report.errors.is_empty() {
        let _ = writeln!(out, "  errors: {}", joined(&report.errors));
    }
    if !report.closes.is_empty() {
        let _ = writeln!(out, "  closes, times code: {}", joined(&report.closes));
    }
    for (rule, count) in &report.violations {
        let _ = writeln!(out, "  VIOLATION {rule}: {count}");
        for violation in report
            .described
            .iter()
            .filter(|violation| violation.rule == *rule)
        {
            let _ = writeln!(out, "    {}", violation.text);
        }
    }
    let verdict = match report.violation_count() {
        0 => "passed".to_owned(),
        count => format!("FAILED, {count} violations"),
    };
    let _ = writeln!(
        out,
        "  {} seed {}: {verdict}; {} commands acknowledged, {} deliveries, {} connections lost",
        report.run.scenario, report.run.seed, report.acked, report.deliveries, report.lost_connections
    );
    out
}

fn joined(counts: &BTreeMap<impl fmt::Display, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    match parts.is_empty() {
        true => "–".to_owned(),
        false => parts.join(", "),
    }
}

/// All runs in a table.
pub fn table(reports: &[Report]) -> String {
    let mut out = String::from(
        "| scenario | seed | clients | faults | connections lost | resumed: p50 / p99 / max, ms | recovered | told anew | \
         sent again / duplicates | acked | deliveries | p99 of delivery, ms | violations |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let count = |count: u64| number(count as f64);
        let resumes = match &report.resumes {
            none if none.count == 0 => "–".to_owned(),
            some => format!(
                "{} / {} / {}",
                number(some.p50),
                number(some.p99),
                number(some.max)
            ),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {resumes} | {} | {} | {} / {} | {} | {} | {} | {} |",
            report.run.scenario,
            report.run.seed,
            report.run.clients,
            report.faults.values().sum::<usize>(),
            report.lost_connections,
            report.recovered,
            joined(&report.discontinuities),
            report.again,
            report.duplicates,
            count(report.acked),
            count(report.deliveries),
            number(report.delays.p99),
            match report.violation_count() {
                0 => "0".to_owned(),
                count => format!("**{count}**"),
            },
        );
    }
    out
}

/// Puts the table and the figures of `reports` between the markers of the file at `path`.
///
/// # Errors
/// It cannot be read or written. One that is not there is made.
pub fn update(path: &Path, reports: &[Report], command: &str) -> io::Result<()> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut section = format!("## Chaos\n\n```\n{command}\n```\n\n{}", table(reports));
    for report in reports {
        let run = &report.run;
        let faults: Vec<String> = report
            .faults
            .iter()
            .map(|(what, count)| format!("{count} × {what}"))
            .collect();
        let mut facts = vec![faults.join(", ")];
        facts.extend(report.figures.iter().map(figure));
        facts.extend(
            report
                .violations
                .iter()
                .map(|(rule, count)| format!("**{rule}: {count}**")),
        );
        let _ = write!(
            section,
            "\n- {}, seed {}: {}.",
            run.scenario,
            run.seed,
            facts.join("; ")
        );
    }
    fs::write(path, splice(&text, &section))
}

/// Replaces what stands between the markers, or adds them at the end.
fn splice(text: &str, section: &str) -> String {
    let old = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = match old {
        Some((before, after)) => (before.to_owned(), after),
        None => (format!("{}\n\n", text.trim_end()), "\n"),
    };
    format!("{before}{BEGIN}\n{}\n{END}{after}", section.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let first = splice("# Results\n\nBy hand.\n", "one");
        assert_eq!(first, format!("# Results\n\nBy hand.\n\n{BEGIN}\none\n{END}\n"));
        let second = splice(&(first + "Below.\n"), "two\n");
        assert_eq!(
            second,
            format!("# Results\n\nBy hand.\n\n{BEGIN}\ntwo\n{END}\nBelow.\n")
        );
    }
}
