//! A torture of a whole cluster: random steps with faults beside a model of what every disk and version must contain.
//!
//! ```text
//! ops.rs      which step comes when: a function of the seed
//! model.rs    what must be where, and what may be lost
//! world.rs    the cluster beside its model, requests with bounds
//! steps.rs    what users and programs do
//! faults.rs   what breaks
//! files.rs    system calls on disks, with bounds
//! writer.rs   a program that writes meanwhile
//! story.rs    what was done, for the message of a failure
//! ```
//! What must hold after each step:
//!
//! - **No wrong byte.** A read gives the bytes of the model. While a daemon is down it may give an error instead. After a
//!   kill of the agent the write that was under way is old or new in each sector; where the holder dies as well, so is
//!   every write that was not flushed.
//! - **No lying state.** What is told as ready can be read; a snapshot that has succeeded has the bytes of its cut; what
//!   fails says why; a path that is not served takes no write.
//! - **No hang.** Every call and every operation has a bound.
//! - **Nothing is left** of what was deleted.
//!
//! Deltas are excepted from flipped bits: like a raw file they carry no checksum. So is the controller's database.

mod faults;
mod files;
mod model;
mod ops;
mod steps;
mod story;
mod world;
mod writer;

use std::time::{Duration, Instant};

use ops::{Op, Random};
use world::World;

/// Seeds of the short run, and steps of each.
const SHORT: [u64; 3] = [1, 2, 3];
const SHORT_STEPS: u64 = 60;
/// Steps of each seed of a long run. Its first steps are those of a short run with that seed.
const LONG_STEPS: u64 = 400;

/// One cluster, tortured for some steps. Answers what was done how often.
async fn torture(seed: u64, steps: u64) -> String {
    let mut world = World::start(seed).await;
    for step in 0..steps {
        let mut random = Random::of_step(seed, step);
        let op = Op::draw(&mut random);
        world.step = step;
        world.story.step(format!("{step:4} {op}"));
        world.take(op, random).await;
    }
    world.story.step("the end".to_owned());
    world.finish().await;
    let counts: Vec<_> = world.story.counts().iter().map(|(what, count)| format!("{count} {what}")).collect();
    counts.join(", ")
}

/// With `MUSTER_TEST_TORTURE_SEED` that seed only, and with `MUSTER_TEST_TORTURE_HOURS` all seeds from there on for so
/// long. `tests/run.sh --long` sets them.
#[tokio::test(flavor = "multi_thread")]
async fn no_wrong_byte_no_lying_state_and_no_hang_whatever_fails() {
    let setting = |name: &str| std::env::var(name).ok();
    let hours = setting("MUSTER_TEST_TORTURE_HOURS").map(|text| text.parse::<f64>().expect("a number of hours"));
    let first = setting("MUSTER_TEST_TORTURE_SEED").map(|text| text.parse::<u64>().expect("a seed"));
    let long = hours.is_some() || first.is_some();
    let until = Instant::now() + Duration::from_secs_f64(hours.unwrap_or(0.0) * 3600.0);
    let seeds: Box<dyn Iterator<Item = u64>> = match first {
        Some(first) => Box::new(first..),
        None if long => Box::new(1..),
        None => Box::new(SHORT.into_iter()),
    };
    for seed in seeds {
        let begun = Instant::now();
        println!("seed {seed} begins");
        let counts = torture(seed, if long { LONG_STEPS } else { SHORT_STEPS }).await;
        println!("seed {seed}: {counts}; {} s", begun.elapsed().as_secs());
        if long && Instant::now() >= until {
            break;
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_steps() {
    let steps = |seed| (0..500).map(|step| Op::draw(&mut Random::of_step(seed, step))).collect::<Vec<_>>();
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
    assert_eq!(steps(7).iter().filter(|op| op.is_fault()).count() / 50, 2, "about a quarter of the steps are faults");
}
