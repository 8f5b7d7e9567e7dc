//! What `Checkpoint::open` takes for a model, and what it says otherwise.

use std::fs;
use std::path::Path;

use lathe_formats::{Checkpoint, ElementType, Error, Format, GgufValue};

use crate::samples::{filler, spec, write_gguf, write_safetensors};

fn touch(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn a_folder_with_one_model() {
    for name in ["model.safetensors", "other.safetensors", "other.gguf"] {
        let folder = tempfile::tempdir().unwrap();
        let tensor = spec("w", &[2, 3], ElementType::F16);
        let path = folder.path().join(name);
        match name.ends_with("gguf") {
            true => write_gguf(&path, &[], std::slice::from_ref(&tensor)).unwrap(),
            false => write_safetensors(&path, std::slice::from_ref(&tensor)).unwrap(),
        }
        touch(folder.path().join("config.json"), "{}");
        touch(folder.path().join("pytorch_model.bin"), "");
        for opened in [folder.path(), &path] {
            let checkpoint = Checkpoint::open(opened).unwrap();
            assert_eq!(checkpoint.path(), opened);
            assert_eq!(checkpoint.files()[0].path(), path);
            assert_eq!(checkpoint.tensor("w").unwrap().bytes(), filler(&tensor, 0));
            assert_eq!(checkpoint.tensors()[0].shape, [2, 3]);
            assert!(checkpoint.tensor("v").is_none());
            assert!(matches!(checkpoint.require("v"), Err(Error::MissingTensor { .. })));
        }
    }
}

#[test]
fn a_file_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [spec("w", &[2], ElementType::F32)];
    write_gguf(&folder.path().join("blob1"), &[], &tensors).unwrap();
    write_safetensors(&folder.path().join("blob2"), &tensors).unwrap();
    let open = |name: &str| Checkpoint::open(folder.path().join(name));
    assert_eq!(open("blob1").unwrap().format(), Format::Gguf);
    assert_eq!(open("blob2").unwrap().format(), Format::Safetensors);
    touch(folder.path().join("notes"), "some text that is no model");
    touch(folder.path().join("empty"), "");
    touch(folder.path().join("empty.gguf"), "");
    touch(folder.path().join("empty.safetensors"), "");
    touch(folder.path().join("page.gguf"), "<html>");
    assert!(matches!(open("notes"), Err(Error::UnknownFormat { .. })));
    assert!(matches!(open("empty"), Err(Error::UnknownFormat { .. })));
    assert!(matches!(open("empty.gguf"), Err(Error::Truncated { .. })));
    assert!(matches!(open("empty.safetensors"), Err(Error::Truncated { .. })));
    assert!(matches!(open("page.gguf"), Err(Error::UnknownFormat { .. })));
    assert!(matches!(open("nothing"), Err(Error::NotFound { .. })));
}

#[test]
fn pickles_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::NoWeights { .. })));
    let pickle = folder.path().join("pytorch_model-00001-of-00002.bin");
    touch(&pickle, "PK");
    for path in [folder.path(), &pickle] {
        let error = Checkpoint::open(path).unwrap_err();
        assert!(matches!(error, Error::PickleOnly { .. }));
        assert!(error.hint().unwrap().contains("safetensors"));
    }
}

#[test]
fn several_models_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    touch(folder.path().join("b.gguf"), "");
    touch(folder.path().join("a.safetensors"), "");
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Ambiguous { candidates, .. } if candidates == ["a.safetensors", "b.gguf"]));
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let (a, b) = (spec("a", &[3], ElementType::U8), spec("b", &[4], ElementType::U8));
    write_safetensors(&folder.path().join(one), std::slice::from_ref(&a)).unwrap();
    write_safetensors(&folder.path().join(two), std::slice::from_ref(&b)).unwrap();
    let index = |map: &str| {
        let text = format!(r#"{{"metadata":{{"total_size":7}},"weight_map":{map}}}"#);
        touch(folder.path().join("model.safetensors.index.json"), &text);
        Checkpoint::open(folder.path())
    };
    let checkpoint = index(&format!(r#"{{"b":"{two}","a":"{one}"}}"#)).unwrap();
    let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.tensor("b").unwrap().bytes(), filler(&b, 0));
    assert_eq!(checkpoint.tensor("b").unwrap().file(), folder.path().join(two));

    let swapped = index(&format!(r#"{{"b":"{one}","a":"{two}"}}"#));
    assert!(matches!(swapped, Err(Error::MissingFromShard { .. })));
    let absent = index(&format!(r#"{{"c":"{one}"}}"#));
    assert!(matches!(absent, Err(Error::MissingFromShard { tensor, .. }) if tensor == "c"));
    let no_shard = index(r#"{"a":"model-00003.safetensors"}"#);
    assert!(matches!(no_shard, Err(Error::Io { .. })));
    for shard in ["../x.safetensors", "/x.safetensors", "sub/x.safetensors", "..", "", "a\\\\b"] {
        let outside = index(&format!(r#"{{"a":"{shard}"}}"#));
        assert!(matches!(outside, Err(Error::BadShardName { .. })), "{shard:?}: {outside:?}");
    }
    assert!(matches!(index(&format!(r#"{{"a":"{one}","a":"{one}"}}"#)), Err(Error::BadJson { .. })));
    assert!(matches!(index("[]"), Err(Error::BadJson { .. })));

    write_safetensors(&folder.path().join(two), std::slice::from_ref(&a)).unwrap();
    let twice = index(&format!(r#"{{"a":"{one}","b":"{two}"}}"#));
    assert!(matches!(twice, Err(Error::DuplicateTensor { tensor, .. }) if tensor == "a"));
}

#[test]
fn a_split_set_opens_from_any_part() {
    let folder = tempfile::tempdir().unwrap();
    let part_name = |part: u16| folder.path().join(format!("m-{part:05}-of-00002.gguf"));
    let write_part = |path: &Path, number: u16, tensor: &str, total: i32| {
        let metadata = [
            ("general.name".to_owned(), GgufValue::Str(format!("part {number}"))),
            ("split.no".to_owned(), GgufValue::U16(number)),
            ("split.count".to_owned(), GgufValue::U16(2)),
            ("split.tensors.count".to_owned(), GgufValue::I32(total)),
        ];
        write_gguf(path, &metadata, &[spec(tensor, &[4], ElementType::F32)]).unwrap();
    };
    write_part(&part_name(1), 0, "a", 2);
    write_part(&part_name(2), 1, "b", 2);
    for opened in [part_name(1), part_name(2), folder.path().to_owned()] {
        let checkpoint = Checkpoint::open(&opened).unwrap();
        assert_eq!(checkpoint.files().len(), 2);
        assert_eq!(checkpoint.tensors().len(), 2);
        assert_eq!(checkpoint.gguf().unwrap().str("general.name").unwrap(), "part 0");
        assert_eq!(checkpoint.tensor("b").unwrap().file(), part_name(2));
    }
    fs::copy(part_name(1), folder.path().join("alone.gguf")).unwrap();
    let alone = Checkpoint::open(folder.path().join("alone.gguf"));
    assert!(matches!(alone, Err(Error::BadSplit { .. })));
    write_part(&part_name(2), 0, "b", 2);
    assert!(matches!(Checkpoint::open(part_name(1)), Err(Error::BadSplit { .. })));
    write_part(&part_name(1), 0, "a", 3);
    write_part(&part_name(2), 1, "b", 3);
    assert!(matches!(Checkpoint::open(part_name(1)), Err(Error::BadSplit { .. })));
    fs::remove_file(part_name(2)).unwrap();
    assert!(matches!(Checkpoint::open(part_name(1)), Err(Error::Io { .. })));
}
