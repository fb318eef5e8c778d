//! What the command line asks for.

use std::path::PathBuf;

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// To see that it works: few launches, no large sizes. Its figures mean nothing.
    pub(crate) quick: bool,
    /// The table of growth instead of the figures.
    pub(crate) growth: bool,
    /// The figures that are wanted, or the words with which their names begin; all if there are
    /// none.
    pub(crate) only: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    /// Where a picture of the growth goes.
    pub(crate) svg: Option<PathBuf>,
}

impl Options {
    /// # Errors
    ///
    /// If it is asked for something unknown.
    pub(crate) fn parse(
        mut args: impl Iterator<Item = String>,
        figures: &[&str],
    ) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo says so to every bench.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--growth" => options.growth = true,
                "--svg" => options.svg = Some(args.next().ok_or("--svg needs a file")?.into()),
                "--json" => options.json = Some(args.next().ok_or("--json needs a file")?.into()),
                "--only" => {
                    let figure = args.next().ok_or("--only needs a figure")?;
                    if !figures.iter().any(|known| begins_with(known, &figure)) {
                        return Err(format!(
                            "no figure is called `{figure}`; there are {}",
                            figures.join(", ")
                        ));
                    }
                    options.only.push(figure);
                }
                _ => {
                    return Err(format!(
                        "unknown argument `{arg}`; there are --quick, --only FIGURE, --json FILE, \
                         --growth and --svg FILE"
                    ));
                }
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| begins_with(figure, only))
    }

    /// How many launches to make.
    pub(crate) fn launches(&self, full: usize) -> usize {
        if self.quick { full.min(2) } else { full }
    }

    /// Which of these sizes to measure.
    pub(crate) fn sizes(&self, full: &[usize]) -> Vec<usize> {
        full.iter().copied().filter(|&size| !self.quick || size <= 1_000).collect()
    }
}

/// Whether a name is made of these words and perhaps more: `idle` means `idle_cpu`, and `idl`
/// nothing.
fn begins_with(name: &str, words: &str) -> bool {
    name.strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}
