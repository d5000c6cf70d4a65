//! A small plot: sizes as bars, durations as a line over them, each at its time, oldest to the left.

/// Width of the plot in its own units.
pub const WIDTH: f64 = 600.0;
/// Height of the plot in its own units.
pub const HEIGHT: f64 = 110.0;
/// Fewer points than this tell no story.
const POINTS_MIN: usize = 2;
/// The widest a bar may be.
const BAR_MAX: f64 = 10.0;

/// What is plotted of one backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When it was asked for, in seconds.
    pub at: f64,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What to say of it.
    pub label: String,
}

/// A bar of the plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Left edge.
    pub x: String,
    /// Upper edge.
    pub y: String,
    /// Width.
    pub width: String,
    /// Height.
    pub height: String,
    /// What to say of it.
    pub label: String,
}

/// A plot, as SVG wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// The bars, oldest first.
    pub bars: Vec<Bar>,
    /// The corners of the line.
    pub line: String,
}

/// Scales points, oldest first; none when there are too few of them.
pub fn plot(points: &[Point]) -> Option<Plot> {
    if points.len() < POINTS_MIN {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a plot has some hundred units")]
    let of = |count: usize| count as f64;
    #[expect(clippy::cast_precision_loss, reason = "a plot has some hundred units")]
    let sizes: Vec<f64> = points.iter().map(|point| point.bytes as f64).collect();
    let width = (WIDTH / of(points.len()) * 0.7).min(BAR_MAX);
    let heights = scaled(&sizes);
    let seconds: Vec<f64> = points.iter().map(|point| point.seconds).collect();
    let times: Vec<f64> = points.iter().map(|point| point.at).collect();
    let (first, last) = (times[0], times[times.len() - 1]);
    let middle = |i: usize| {
        let part = (times[i] - first) / (last - first);
        // Where all are of one moment, or the clock was set back, there is no part.
        let part = if part.is_finite() {
            part.clamp(0.0, 1.0)
        } else {
            0.0
        };
        width / 2.0 + part * (WIDTH - width)
    };
    let bars = points.iter().zip(heights).enumerate();
    let bars = bars.map(|(i, (point, height))| Bar {
        x: unit(middle(i) - width / 2.0),
        y: unit(HEIGHT - height),
        width: unit(width),
        height: unit(height),
        label: point.label.clone(),
    });
    let corners = scaled(&seconds).into_iter().enumerate();
    let corners = corners.map(|(i, y)| format!("{},{}", unit(middle(i)), unit(HEIGHT - y)));
    Some(Plot {
        bars: bars.collect(),
        line: corners.collect::<Vec<_>>().join(" "),
    })
}

/// Each value as a height: the largest one is the plot's, and none is nothing.
fn scaled(values: &[f64]) -> Vec<f64> {
    let good = |value: f64| {
        if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        }
    };
    let most = values.iter().copied().map(good).fold(0.0, f64::max);
    let height = |value: f64| {
        if most > 0.0 {
            (good(value) / most * HEIGHT).max(1.0)
        } else {
            1.0
        }
    };
    values.iter().copied().map(height).collect()
}

fn unit(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(at: f64, bytes: u64, seconds: f64) -> Point {
        Point {
            at,
            bytes,
            seconds,
            label: String::new(),
        }
    }

    #[test]
    fn a_plot_is_scaled_to_its_largest_values() {
        assert_eq!(plot(&[point(0.0, 1, 1.0)]), None);
        let plot = plot(&[
            point(0.0, 50, 2.0),
            point(10.0, 20, 0.5),
            point(40.0, 100, 1.0),
        ])
        .expect("a plot");
        let heights: Vec<&str> = plot.bars.iter().map(|bar| bar.height.as_str()).collect();
        assert_eq!(heights, ["55.0", "22.0", "110.0"]);
        // A quarter of the time is a quarter of the way.
        assert_eq!(plot.line, "5.0,0.0 152.5,82.5 595.0,55.0");
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_plot(values in prop::collection::vec((any::<f64>(), any::<u64>(), any::<f64>()), 2..80)) {
            let points: Vec<Point> = values.iter().map(|(at, b, s)| point(*at, *b, *s)).collect();
            let plot = plot(&points).expect("a plot");
            prop_assert_eq!(plot.bars.len(), points.len());
            let inside = |text: &str, most: f64| {
                let value: f64 = text.parse().expect("a number");
                (0.0..=most + 0.1).contains(&value)
            };
            for bar in &plot.bars {
                prop_assert!(inside(&bar.x, WIDTH) && inside(&bar.y, HEIGHT) && inside(&bar.height, HEIGHT));
            }
            for corner in plot.line.split(' ') {
                let (x, y) = corner.split_once(',').expect("two numbers");
                prop_assert!(inside(x, WIDTH) && inside(y, HEIGHT), "{}", corner);
            }
        }
    }
}
