//! A checkpoint: one or several mapped files seen as one set of named tensors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::Error;
use crate::gguf;
use crate::gguf_metadata::{GgufMetadata, optional};
use crate::safetensors;
use crate::tensor::{TensorInfo, TensorView};

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One file, or a split set, of llama.cpp's format.
    Gguf,
    /// One file, or shards with an index.
    Safetensors,
}

/// One or several checkpoint files. Opening reads the headers; tensors stay on disk until they are read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<StoredFile>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    metadata: Metadata,
}

/// What a checkpoint says of itself. Of several files, the first one's word counts.
#[derive(Debug, Clone)]
pub enum Metadata {
    /// Typed keys of a GGUF file.
    Gguf(GgufMetadata),
    /// `__metadata__` of safetensors files, often empty.
    Safetensors(BTreeMap<String, String>),
}

/// A file of a checkpoint.
#[derive(Debug)]
pub struct StoredFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Checkpoint {
    /// Opens
    /// * a folder with `model.safetensors`, with `model.safetensors.index.json` and its shards, or with one other
    ///   `.safetensors` or `.gguf` model (looked for in this order),
    /// * a `.safetensors` file or an index,
    /// * a `.gguf` file; any part of a split set (`-00001-of-00003.gguf`) opens the whole set.
    ///
    /// The files must stay as they are while the checkpoint is open.
    ///
    /// # Errors
    /// Nothing is there, it is of another format, or its header is wrong in any way: sizes, offsets, names and types
    /// are all checked here.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(Error::NotFound { path: path.into() });
        }
        let file = if path.is_dir() { weights_of_folder(path)? } else { path.into() };
        if is_index(&file) {
            return open_index(path, &file);
        }
        if is_pickle(&file) {
            return Err(Error::PickleOnly { path: file });
        }
        let stored = StoredFile::map(&file)?;
        match recognise(&stored)? {
            Format::Gguf => open_gguf(path, stored),
            Format::Safetensors => {
                let (metadata, tensors) = safetensors::parse(&stored.path, 0, stored.bytes())?;
                assemble(path, vec![stored], tensors, Metadata::Safetensors(metadata))
            }
        }
    }

    /// A checkpoint of one file that is already in memory; `name` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]. A part of a split GGUF is read alone.
    pub fn from_bytes(name: impl Into<PathBuf>, format: Format, bytes: Vec<u8>) -> Result<Checkpoint, Error> {
        let path = name.into();
        let (metadata, tensors) = match format {
            Format::Gguf => {
                let (metadata, tensors) = gguf::parse(&path, 0, &bytes)?;
                (Metadata::Gguf(metadata), tensors)
            }
            Format::Safetensors => {
                let (metadata, tensors) = safetensors::parse(&path, 0, &bytes)?;
                (Metadata::Safetensors(metadata), tensors)
            }
        };
        let stored = StoredFile { path: path.clone(), content: Content::Owned(bytes) };
        assemble(&path, vec![stored], tensors, metadata)
    }

    /// What was opened: the folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format of its files.
    pub fn format(&self) -> Format {
        match self.metadata {
            Metadata::Gguf(_) => Format::Gguf,
            Metadata::Safetensors(_) => Format::Safetensors,
        }
    }

    /// All tensors: file by file, by position within each.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// All tensors with their bytes, in the order of [`Checkpoint::tensors`].
    pub fn views(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|info| self.view(info))
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        Some(self.view(&self.tensors[*self.by_name.get(name)?]))
    }

    /// Tells the system that the bytes of a tensor are not needed for now: they no longer count as memory of this process
    /// and are read from the file again if they are looked at. Without effect where the system knows no such thing.
    pub fn release(&self, tensor: &str) {
        let Some(view) = self.tensor(tensor) else { return };
        let file = &self.files[view.info().file];
        let offset = view.bytes().as_ptr().addr() - file.bytes().as_ptr().addr();
        file.release(offset, view.bytes().len());
    }

    /// The same for some bytes of a tensor.
    ///
    /// # Panics
    /// When the tensor has fewer bytes.
    pub fn release_bytes(&self, tensor: &TensorView<'_>, bytes: Range<usize>) {
        let file = &self.files[tensor.info().file];
        let begin = tensor.bytes()[bytes.clone()].as_ptr().addr() - file.bytes().as_ptr().addr();
        file.release(begin, bytes.len());
    }

    /// The tensor of this name, which the caller cannot do without.
    ///
    /// # Errors
    /// There is none.
    pub fn require(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.tensor(name).ok_or_else(|| Error::MissingTensor { file: self.path.clone(), tensor: name.to_owned() })
    }

    /// Its files; [`TensorInfo::file`] is an index into them.
    pub fn files(&self) -> &[StoredFile] {
        &self.files
    }

    /// What it says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The keys of a GGUF file; None for safetensors.
    pub fn gguf(&self) -> Option<&GgufMetadata> {
        match &self.metadata {
            Metadata::Gguf(metadata) => Some(metadata),
            Metadata::Safetensors(_) => None,
        }
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        let file = &self.files[info.file];
        TensorView::new(info, &file.bytes()[info.span.clone()], &file.path)
    }
}

impl StoredFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::Owned(bytes) => bytes,
        }
    }

    fn map(path: &Path) -> Result<StoredFile, Error> {
        let failed = |action, source| Error::Io { file: path.into(), action, source };
        let file = File::open(path).map_err(|source| failed("open the file", source))?;
        let metadata = file.metadata().map_err(|source| failed("read the size", source))?;
        if !metadata.is_file() {
            return Err(Error::UnknownFormat { file: path.into() });
        }
        // An empty file cannot be mapped everywhere.
        let content = if metadata.len() == 0 {
            Content::Owned(Vec::new())
        } else {
            #[expect(unsafe_code, reason = "memory maps are how weights larger than memory are read")]
            // SAFETY: the map is read-only and private to this value. A process that changes or cuts the file while it
            // is mapped would change the bytes under us; checkpoints are immutable by contract (see `open`), and
            // lathe's own writers replace files by renaming, which leaves existing maps untouched.
            let map = unsafe { Mmap::map(&file) }.map_err(|source| failed("map the file", source))?;
            Content::Mapped(map)
        };
        Ok(StoredFile { path: path.into(), content })
    }

    /// The file in pieces of at most `len` bytes; each counts as memory of this process only while it is looked at.
    pub fn pieces(&self, len: usize) -> impl Iterator<Item = &[u8]> {
        let mut before = 0..0;
        self.bytes().chunks(len.max(1)).inspect(move |piece| {
            self.release(before.start, before.len());
            before = before.end..before.end + piece.len();
        })
    }

    /// Lets go of some bytes of the map; they can still be read.
    #[cfg(unix)]
    fn release(&self, offset: usize, len: usize) {
        let Content::Mapped(map) = &self.content else { return };
        #[expect(unsafe_code, reason = "advice about a memory map")]
        // SAFETY: the map is read-only and of a file, so that a page that is dropped comes back from the file with the same
        // bytes (see `open`).
        let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        // It is advice: a system that does not take it keeps the pages.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn release(&self, _: usize, _: usize) {}
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn weights_of_folder(folder: &Path) -> Result<PathBuf, Error> {
    for name in [SINGLE, INDEX] {
        if folder.join(name).exists() {
            return Ok(folder.join(name));
        }
    }
    let names = file_names(folder)?;
    let is_model = |name: &&String| {
        let path = Path::new(name.as_str());
        // Of a split set, the first part stands for all.
        let later_part = split_name(path).is_some_and(|split| split.part != 1);
        is_index(path) || has_extension(path, &["safetensors"]) || has_extension(path, &["gguf"]) && !later_part
    };
    let candidates: Vec<&String> = names.iter().filter(is_model).collect();
    match candidates[..] {
        [one] => Ok(folder.join(one)),
        [] if names.iter().any(|name| is_pickle(Path::new(name))) => Err(Error::PickleOnly { path: folder.into() }),
        [] => Err(Error::NoWeights { folder: folder.into() }),
        _ => Err(Error::Ambiguous { folder: folder.into(), candidates: candidates.into_iter().cloned().collect() }),
    }
}

/// Names in a folder, sorted, so that nothing depends on the file system's order.
fn file_names(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Io { file: folder.into(), action: "list the folder", source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| extensions.iter().any(|wanted| found.eq_ignore_ascii_case(wanted)))
}

fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(".safetensors.index.json"))
}

fn is_pickle(path: &Path) -> bool {
    has_extension(path, &["bin", "pt", "pth", "ckpt", "pkl"])
}

/// The format by content, or by name where the content says nothing.
fn recognise(file: &StoredFile) -> Result<Format, Error> {
    let bytes = file.bytes();
    if bytes.starts_with(gguf::MAGIC) || has_extension(&file.path, &["gguf"]) {
        return Ok(Format::Gguf);
    }
    // Content-addressed caches have no extensions; the JSON of a safetensors header begins at byte 8.
    if has_extension(&file.path, &["safetensors"]) || bytes.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    Err(Error::UnknownFormat { file: file.path.clone() })
}

fn open_index(path: &Path, index_file: &Path) -> Result<Checkpoint, Error> {
    let stored = StoredFile::map(index_file)?;
    let bytes = stored.bytes();
    if bytes.len() as u64 > safetensors::MAX_HEADER_BYTES {
        return Err(Error::HeaderTooLong {
            file: index_file.into(),
            claimed: bytes.len() as u64,
            limit: safetensors::MAX_HEADER_BYTES,
        });
    }
    let index = safetensors::parse_index(index_file, bytes)?;
    let folder = index_file.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<&str> = index.weight_map.iter().map(|(_, shard)| shard.as_str()).collect();

    let (mut files, mut tensors, mut metadata) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (file_index, shard) in shards.iter().enumerate() {
        // An index comes from elsewhere: it may not reach outside its folder.
        if Path::new(shard).file_name() != Some(shard.as_ref()) || shard.contains(['/', '\\']) {
            return Err(Error::BadShardName { file: index_file.into(), shard: (*shard).to_owned() });
        }
        let stored = StoredFile::map(&folder.join(shard))?;
        let (pairs, found) = safetensors::parse(&stored.path, file_index, stored.bytes())?;
        for (key, value) in pairs {
            metadata.entry(key).or_insert(value);
        }
        files.push(stored);
        tensors.extend(found);
    }
    let checkpoint = assemble(path, files, tensors, Metadata::Safetensors(metadata))?;
    let shards: Vec<&str> = shards.into_iter().collect();
    for (tensor, shard) in &index.weight_map {
        let found = checkpoint.by_name.get(tensor).map(|&position| &checkpoint.tensors[position]);
        if found.is_none_or(|found| shards[found.file] != shard) {
            return Err(Error::MissingFromShard {
                file: index_file.into(),
                tensor: tensor.clone(),
                shard: shard.clone(),
            });
        }
    }
    Ok(checkpoint)
}

/// Keys of the parts of a split set, as llama.cpp writes them.
const SPLIT_COUNT: &str = "split.count";
const SPLIT_NUMBER: &str = "split.no";
const SPLIT_TENSORS: &str = "split.tensors.count";

fn open_gguf(path: &Path, stored: StoredFile) -> Result<Checkpoint, Error> {
    let (metadata, tensors) = gguf::parse(&stored.path, 0, stored.bytes())?;
    let count = optional(metadata.u64(SPLIT_COUNT))?.unwrap_or(1);
    if count <= 1 {
        return assemble(path, vec![stored], tensors, Metadata::Gguf(metadata));
    }
    let bad_split = |file: &Path, reason: String| Error::BadSplit { file: file.into(), reason };
    let Some(split) = split_name(&stored.path).filter(|split| u64::from(split.count) == count) else {
        let reason = format!("one of {count} parts, but not named as one (-00001-of-{count:05}.gguf)");
        return Err(bad_split(&stored.path, reason));
    };
    let (mut files, mut tensors, mut first_metadata) = (Vec::new(), Vec::new(), None);
    for part in 1..=split.count {
        let name = format!("{}-{part:05}-of-{:05}.gguf", split.prefix, split.count);
        let stored = StoredFile::map(&stored.path.with_file_name(name))?;
        let (metadata, found) = gguf::parse(&stored.path, files.len(), stored.bytes())?;
        let (number, of) = (metadata.u64(SPLIT_NUMBER)?, metadata.u64(SPLIT_COUNT)?);
        if number != u64::from(part) - 1 || of != count {
            let reason =
                format!("named as part {part} of {count}, but holds part {} of {of}", number.saturating_add(1));
            return Err(bad_split(&stored.path, reason));
        }
        first_metadata.get_or_insert(metadata);
        tensors.extend(found);
        files.push(stored);
    }
    let Some(metadata) = first_metadata else {
        return Err(bad_split(&stored.path, "a set of no parts".to_owned()));
    };
    if let Some(promised) = optional(metadata.u64(SPLIT_TENSORS))?
        && promised != tensors.len() as u64
    {
        let reason = format!("the set should hold {promised} tensors, but holds {}", tensors.len());
        return Err(bad_split(&stored.path, reason));
    }
    assemble(path, files, tensors, Metadata::Gguf(metadata))
}

/// The name of a part of a split set, taken apart.
struct SplitName<'a> {
    prefix: &'a str,
    part: u32,
    count: u32,
}

/// `PREFIX-00002-of-00003.gguf`.
fn split_name(path: &Path) -> Option<SplitName<'_>> {
    let number = |digits: &str| {
        let five_digits = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        five_digits.then(|| digits.parse().ok()).flatten()
    };
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, part) = rest.rsplit_once('-')?;
    Some(SplitName { prefix, part: number(part)?, count: number(count)? })
}

fn assemble(
    path: &Path,
    files: Vec<StoredFile>,
    tensors: Vec<TensorInfo>,
    metadata: Metadata,
) -> Result<Checkpoint, Error> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (position, tensor) in tensors.iter().enumerate() {
        if by_name.insert(tensor.name.clone(), position).is_some() {
            return Err(Error::DuplicateTensor { file: files[tensor.file].path.clone(), tensor: tensor.name.clone() });
        }
    }
    Ok(Checkpoint { path: path.into(), files, tensors, by_name, metadata })
}
