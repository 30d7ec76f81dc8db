//! What came of a run, for people and for programs.

use serde_json::{Value, json};
use tidelog_driver::{Outcome, ProcessUse};

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// Shares of the replies whose times are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// A run with its figures.
pub(super) struct Report<'a> {
    /// What was asked for.
    load: Value,
    in_flight: u32,
    outcome: &'a Outcome,
}

impl<'a> Report<'a> {
    pub(super) fn new(load: Value, in_flight: u32, outcome: &'a Outcome) -> Self {
        Report {
            load,
            in_flight,
            outcome,
        }
    }

    fn seconds(&self) -> f64 {
        self.outcome.elapsed.as_secs_f64().max(1e-9)
    }

    fn gib(&self) -> f64 {
        self.outcome.bytes as f64 / GIB
    }

    fn mib_per_s(&self) -> f64 {
        self.outcome.bytes as f64 / MIB / self.seconds()
    }

    pub(super) fn json(&self) -> Value {
        let Outcome { latencies, .. } = self.outcome;
        let mut value = self.load.clone();
        let figures = json!({
            "request_version": self.outcome.version,
            "connections": self.outcome.connections,
            "in_flight": self.in_flight,
            "requests": self.outcome.requests,
            "records": self.outcome.records,
            "bytes": self.outcome.bytes,
            "seconds": self.seconds(),
            "mib_per_s": self.mib_per_s(),
            "records_per_s": self.outcome.records as f64 / self.seconds(),
            "latency_ms": if latencies.count() == 0 { Value::Null } else {
                let mut times: serde_json::Map<_, _> = QUANTILES
                    .iter()
                    .map(|(name, share)| {
                        ((*name).to_owned(), json!(millis(latencies.quantile(*share))))
                    })
                    .collect();
                times.insert("mean".to_owned(), json!(millis(latencies.mean())));
                times.insert("max".to_owned(), json!(millis(latencies.max())));
                Value::Object(times)
            },
            "driver": self.process_json(&self.outcome.driver),
            "broker": self.outcome.broker.map(|used| self.process_json(&used)),
        });
        if let (Value::Object(into), Value::Object(from)) = (&mut value, figures) {
            into.extend(from);
        }
        value
    }

    fn process_json(&self, used: &ProcessUse) -> Value {
        json!({
            "user_s": used.user_s(),
            "system_s": used.system_s(),
            "cpu_s_per_gib": self.per_gib(used),
            "memory_before_bytes": used.before.memory_bytes,
            "memory_bytes": used.after.memory_bytes,
            "memory_peak_bytes": used.after.memory_peak_bytes,
        })
    }

    fn per_gib(&self, used: &ProcessUse) -> Option<f64> {
        (self.outcome.bytes > 0).then(|| (used.user_s() + used.system_s()) / self.gib())
    }

    pub(super) fn text(&self) -> String {
        let outcome = self.outcome;
        let mut text = format!(
            "{:.1} MiB in {:.2} s: {:.1} MiB/s, {:.0} records/s, {:.0} requests/s\n",
            outcome.bytes as f64 / MIB,
            self.seconds(),
            self.mib_per_s(),
            outcome.records as f64 / self.seconds(),
            outcome.requests as f64 / self.seconds(),
        );
        if outcome.latencies.count() > 0 {
            text += "latency ms:";
            for (name, share) in QUANTILES {
                let time = millis(outcome.latencies.quantile(share));
                text += &format!("  {name} {time:.2}");
            }
            text += &format!("  max {:.2}\n", millis(outcome.latencies.max()));
        }
        text += &self.process_text("driver", &outcome.driver);
        if let Some(broker) = &outcome.broker {
            text += &self.process_text("broker", broker);
        }
        text
    }

    fn process_text(&self, name: &str, used: &ProcessUse) -> String {
        format!(
            "{name}: CPU {:.2} s user, {:.2} s system, {:.2} s/GiB; memory {:.1} MiB, at most {:.1} MiB\n",
            used.user_s(),
            used.system_s(),
            self.per_gib(used).unwrap_or_default(),
            used.after.memory_bytes as f64 / MIB,
            used.after.memory_peak_bytes as f64 / MIB,
        )
    }
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
