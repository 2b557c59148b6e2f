//! The demo, as somebody sees it who has just built the program.

use serde_json::Value;

use crate::broker::Place;

#[test]
fn a_demo_verifies_everything_marks_what_is_void_and_removes_nothing_of_others() {
    let place = Place::new();
    let foreign = place.path().join("thesis.txt");
    std::fs::write(&foreign, "years of work").unwrap();
    let (directory, json) = (place.path().to_str().unwrap(), place.path().join("demo.json"));
    let arguments = ["demo", "--data", directory, "--duration", "1s", "--quiet", "--json", json.to_str().unwrap()];
    let text = place.run(&arguments, b"").good();
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "years of work");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4, "{report}");
    for run in runs.iter().chain([&report["group"]]) {
        for fault in ["lost", "reordered", "corrupt", "failed"] {
            assert_eq!(run[fault], 0, "{fault}: {run}");
        }
    }
    let moved = report["group"]["moved"]["partitions"].as_u64().unwrap();
    assert!(0 < moved, "the group was disturbed, and nothing moved: {report}");
    // A machine that is busy makes some of them void; then the text says so where the figures stand.
    let sweeps = runs[1..].iter().filter(|run| run["void"] == true).count();
    let table = text.split_once("N x M").unwrap().1;
    assert_eq!(table.matches("%  VOID").count(), sweeps, "{text}");
    assert_eq!(text.contains("  VOID: "), report["group"]["void"] == true, "{text}");
    let is_void = report["group"]["void"] == true || runs.iter().any(|run| run["void"] == true);
    assert_eq!(report["void"], is_void, "{report}");
    assert_eq!(text.contains("must not be believed"), is_void, "{text}");
}

#[test]
fn a_directory_called_demo_that_no_demo_has_made_is_left_alone() {
    let place = Place::new();
    let photo = place.path().join("demo/ada.png");
    std::fs::create_dir(photo.parent().unwrap()).unwrap();
    std::fs::write(&photo, "a photo").unwrap();
    let text = place.run(&["demo", "--data", place.path().to_str().unwrap()], b"").bad(1);
    assert!(text.contains("no demo has made") && text.contains("--data"), "{text}");
    assert!(photo.exists());
}
