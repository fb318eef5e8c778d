//! Row of the table: what the scenes found with one service.

use std::time::Duration;

#[derive(Default)]
pub struct Row {
    pub messages: usize,
    pub lost: usize,
    pub duplicated: u32,
    pub back_after: Duration,
    pub stopped_blocked: Duration,
    pub stopped_frozen: Duration,
    /// Whether there are calls that nothing ends, so that the shutdown names the consumer.
    pub is_stuck_in_calls: bool,
    /// Threads and descriptors.
    pub before: (usize, usize),
    pub after: (usize, usize),
    /// In a long outage: when five clients were back after their server, alone and as its
    /// dependents, and how long after the child that is their server.
    pub fleet_alone: Duration,
    pub fleet_after: Duration,
    pub fleet_late: Duration,
    pub faults: Vec<String>,
}

const HEADINGS: [&str; 10] = [
    "service",
    "messages",
    "lost",
    "duplicated",
    "back after",
    "stop, blocked",
    "stop, frozen",
    "threads/fds",
    "after 500",
    "five alone/after/late",
];

impl Row {
    pub fn broken(fault: String) -> Self {
        Self { faults: vec![fault], ..Self::default() }
    }

    pub fn to_line(&self) -> String {
        let millis = |duration: Duration| duration.as_millis().to_string();
        let figures = [
            self.messages.to_string(),
            self.lost.to_string(),
            self.duplicated.to_string(),
            millis(self.back_after),
            millis(self.stopped_blocked),
            millis(self.stopped_frozen),
            self.is_stuck_in_calls.to_string(),
            self.before.0.to_string(),
            self.before.1.to_string(),
            self.after.0.to_string(),
            self.after.1.to_string(),
            millis(self.fleet_alone),
            millis(self.fleet_after),
            millis(self.fleet_late),
        ];
        format!("{}|{}", figures.join(" "), self.faults.join("|"))
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let (figures, faults) = line.split_once('|')?;
        let figures: [&str; 14] = figures.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let [messages, lost, duplicated, back, blocked, frozen, stuck, threads, fds, ..] = figures;
        let [.., later, more, alone, after, late] = figures;
        let millis = |text: &str| text.parse().map(Duration::from_millis);
        Some(Self {
            messages: messages.parse().ok()?,
            lost: lost.parse().ok()?,
            duplicated: duplicated.parse().ok()?,
            back_after: millis(back).ok()?,
            stopped_blocked: millis(blocked).ok()?,
            stopped_frozen: millis(frozen).ok()?,
            is_stuck_in_calls: stuck.parse().ok()?,
            before: (threads.parse().ok()?, fds.parse().ok()?),
            after: (later.parse().ok()?, more.parse().ok()?),
            fleet_alone: millis(alone).ok()?,
            fleet_after: millis(after).ok()?,
            fleet_late: millis(late).ok()?,
            faults: faults.split('|').filter(|fault| !fault.is_empty()).map(String::from).collect(),
        })
    }

    fn cells(&self, service: &str) -> [String; 10] {
        let millis = |duration: Duration| format!("{} ms", duration.as_millis());
        // Its program has not come to the end.
        if self.messages == 0 {
            return std::array::from_fn(|column| if column == 0 { service } else { "?" }.into());
        }
        [
            service.into(),
            self.messages.to_string(),
            self.lost.to_string(),
            self.duplicated.to_string(),
            millis(self.back_after),
            millis(self.stopped_blocked),
            millis(self.stopped_frozen) + if self.is_stuck_in_calls { ", stuck" } else { "" },
            format!("{}/{}", self.before.0, self.before.1),
            format!("{}/{}", self.after.0, self.after.1),
            if self.fleet_alone.is_zero() {
                String::from("-")
            } else {
                let millis = [self.fleet_alone, self.fleet_after, self.fleet_late]
                    .map(|duration| duration.as_millis().to_string());
                format!("{} ms", millis.join("/"))
            },
        ]
    }
}

pub fn table(services: &[&str], rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(String::from)];
    lines.extend(services.iter().zip(rows).map(|(service, row)| row.cells(service)));
    let widths: [usize; 10] = std::array::from_fn(|column| {
        lines.iter().map(|cells| cells[column].len()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for cells in lines {
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            // Names to the left, figures to the right.
            let padded =
                if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&padded);
        }
        text.push('\n');
    }
    text
}
