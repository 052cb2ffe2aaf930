//! Writing and reading one file of records: a segment or a piece of evidence.

use crate::format::{self, BadHeader, FileKey, Header, Located, Record, RecordHead};
use crate::{Access, FrameId, Fs, FsFile};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How much is read at once when looking for the next sound record behind a damaged one.
const SEARCH_BYTES: u64 = 64 << 10;

/// A file of records that is being written.
pub(crate) struct FileWriter {
    file: Arc<dyn FsFile>,
    key: FileKey,
    /// Where the next record goes.
    end: u64,
    entries: Vec<Located>,
}

impl FileWriter {
    /// A new file with its header, `preallocate` bytes long. Neither its bytes nor its name are
    /// durable yet.
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        header: &Header,
        preallocate: u64,
    ) -> io::Result<FileWriter> {
        let file = fs.open(path, Access::Create)?;
        if preallocate > 0 {
            file.preallocate(preallocate)?;
        }
        file.write_at(&header.encode(), 0)?;
        Ok(FileWriter { file, key: header.key, end: format::HEADER_BYTES, entries: Vec::new() })
    }

    /// A file found open after a crash, to be closed at `end` behind the records found in it.
    pub(crate) fn reopen(
        fs: &dyn Fs,
        path: &Path,
        key: FileKey,
        end: u64,
        entries: Vec<Located>,
    ) -> io::Result<FileWriter> {
        Ok(FileWriter { file: fs.open(path, Access::Write)?, key, end, entries })
    }

    /// Whether a record of `record_bytes` still leaves room for the footer in `capacity`.
    pub(crate) fn fits(&self, record_bytes: u64, capacity: u64) -> bool {
        let footer = format::footer_bytes(self.entries.len() as u64 + 1);
        self.end + record_bytes + footer <= capacity
    }

    /// Writes a record behind the last. After an error the file must only be closed.
    pub(crate) fn push(&mut self, record: &Record) -> io::Result<Located> {
        let offset = u32::try_from(self.end).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.file.write_at(record.bytes(), self.end)?;
        let RecordHead { id, media_time, camera, .. } = record.head;
        let located = Located { id, media_time, camera, offset };
        self.end += record.bytes().len() as u64;
        self.entries.push(located);
        Ok(located)
    }

    pub(crate) fn entries(&self) -> &[Located] {
        &self.entries
    }

    pub(crate) fn key(&self) -> FileKey {
        self.key
    }

    pub(crate) fn file(&self) -> Arc<dyn FsFile> {
        self.file.clone()
    }

    /// Closes a file whose name nobody relies on yet: footer, length, one sync. Returns its length.
    pub(crate) fn finish(&self) -> io::Result<u64> {
        let footer = format::encode_footer(self.key, self.end, &self.entries);
        self.file.write_at(&footer, self.end)?;
        let bytes = self.end + footer.len() as u64;
        self.file.set_len(bytes)?;
        self.file.sync()?;
        Ok(bytes)
    }

    /// Closes a file that is in use. The records are made durable before the footer is written, so
    /// that a crash in between cannot leave a sound footer that lists lost records.
    pub(crate) fn seal(&self) -> io::Result<u64> {
        self.file.sync()?;
        self.finish()
    }
}

/// What a file of records was found to hold.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The file's own header; `None` if it is damaged.
    pub header: Option<Header>,
    /// In order of id.
    pub entries: Vec<Located>,
    /// Where the records end.
    pub records_end: u64,
    /// Length of the file.
    pub bytes: u64,
    /// How the entries were learnt.
    pub source: Source,
}

/// How the entries of a file were learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From its footer: it was closed, with all records durable.
    Footer,
    /// By reading it from its beginning, because it has no sound footer.
    Scan(Damage),
    /// Not at all: it is none of this store's files.
    Foreign(Foreign),
}

/// What a file in the store's directory is that the store did not write, or not this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Of another store, or under another file's name.
    OtherFile(FileKey),
    /// Written by a later version.
    NewerVersion(u16),
}

impl Contents {
    fn foreign(bytes: u64, why: Foreign) -> Contents {
        let source = Source::Foreign(why);
        Contents { header: None, entries: Vec::new(), records_end: 0, bytes, source }
    }

    /// The first id that is missing behind the last record found; `None` if nothing tells.
    pub(crate) fn next_id(&self) -> Option<FrameId> {
        match (self.entries.last(), &self.header) {
            (Some(last), _) => Some(FrameId(last.id.0 + 1)),
            (None, Some(header)) => Some(FrameId(header.first_id)),
            (None, None) => None,
        }
    }
}

/// What a scan met between and behind the sound records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Frames missing between two that are there, by the gap in their ids.
    pub frames_between: u64,
    /// Whether something that is no sound record follows the last one.
    pub torn_tail: bool,
    /// Bytes that are no zeros and no sound record.
    pub bytes: u64,
    /// Whether the disk refused to read a part.
    pub unreadable: bool,
}

/// Learns what a file of records holds: from its footer, or by a scan if that is not sound.
pub(crate) fn load(fs: &dyn Fs, path: &Path, key: FileKey) -> io::Result<Contents> {
    let file = fs.open(path, Access::Read)?;
    let bytes = file.size()?;
    // A header that the disk refuses to read is not a missing one: it may have named frames.
    let header_read =
        if bytes < format::HEADER_BYTES { Ok(None) } else { read_header(&*file).map(Some) };
    let refused = header_read.is_err();
    let header = match header_read.ok().flatten() {
        Some(Ok(header)) if header.key == key => Some(header),
        Some(Ok(other)) => return Ok(Contents::foreign(bytes, Foreign::OtherFile(other.key))),
        Some(Err(BadHeader::Newer(version))) => {
            return Ok(Contents::foreign(bytes, Foreign::NewerVersion(version)));
        }
        Some(Err(BadHeader::Damaged)) | None => None,
    };
    // The claim of a tail whose footer is damaged still tells where the records ended.
    let claim = read_footer_offset(&*file, bytes);
    let footer = claim.and_then(|offset| read_footer(&*file, bytes, key, offset));
    Ok(match claim.zip(footer) {
        Some((records_end, entries)) => {
            Contents { header, entries, records_end, bytes, source: Source::Footer }
        }
        None => Scan::new(&*file, key, bytes, refused).run(header, claim),
    })
}

/// The header at the beginning of a file.
pub(crate) fn read_header(file: &dyn FsFile) -> io::Result<Result<Header, BadHeader>> {
    let mut bytes = [0; format::HEADER_BYTES as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(Header::decode(&bytes))
}

/// Where the tail of a file says that its footer begins.
pub(crate) fn read_footer_offset(file: &dyn FsFile, bytes: u64) -> Option<u64> {
    let mut tail = [0; format::FOOTER_TAIL_BYTES as usize];
    let at = bytes.checked_sub(format::FOOTER_TAIL_BYTES)?;
    file.read_at(&mut tail, at).ok()?;
    format::footer_offset(&tail).filter(|&offset| offset >= format::HEADER_BYTES && offset < at)
}

/// The entries of the footer at `offset`, if it is sound.
pub(crate) fn read_footer(
    file: &dyn FsFile,
    bytes: u64,
    key: FileKey,
    offset: u64,
) -> Option<Vec<Located>> {
    let mut footer = vec![0; usize::try_from(bytes.checked_sub(offset)?).ok()?];
    file.read_at(&mut footer, offset).ok()?;
    format::decode_footer(key, offset, &footer)
}

/// Why a record could not be had.
#[derive(Debug)]
pub(crate) enum BadRecord {
    /// The system refused to read.
    Io(io::Error),
    /// What is there is no sound record.
    Damaged,
}

/// The record at `offset`, proven by its crc.
pub(crate) fn read_record(
    file: &dyn FsFile,
    key: FileKey,
    offset: u64,
    end: u64,
) -> Result<Record, BadRecord> {
    let mut bytes = vec![0; format::RECORD_HEAD_BYTES as usize];
    if offset.saturating_add(format::RECORD_HEAD_BYTES) > end {
        return Err(BadRecord::Damaged);
    }
    file.read_at(&mut bytes, offset).map_err(BadRecord::Io)?;
    let head = RecordHead::decode(&bytes).ok_or(BadRecord::Damaged)?;
    // A damaged length must not ask for more memory than the file has bytes.
    if offset.saturating_add(head.record_bytes()) > end {
        return Err(BadRecord::Damaged);
    }
    bytes.resize(head.record_bytes() as usize, 0);
    let (read, rest) = bytes.split_at_mut(format::RECORD_HEAD_BYTES as usize);
    file.read_at(rest, offset + read.len() as u64).map_err(BadRecord::Io)?;
    Record::decode(key, bytes).ok_or(BadRecord::Damaged)
}

/// Reading a file from its beginning, over damaged parts.
struct Scan<'a> {
    file: &'a dyn FsFile,
    key: FileKey,
    bytes: u64,
    damage: Damage,
    /// Bytes that may still be read to try what only looks like a record: a hostile picture made
    /// of nothing but heads of long records must not make the store read the file again and again.
    trials: u64,
}

/// What follows a place that is no sound record.
enum Next {
    Record(u64, Record),
    /// Nothing but zeros, or the footer.
    End,
    /// No sound record, but other bytes up to here.
    Torn(u64),
}

impl<'a> Scan<'a> {
    fn new(file: &'a dyn FsFile, key: FileKey, bytes: u64, unreadable: bool) -> Self {
        let damage = Damage { unreadable, ..Damage::default() };
        Scan { file, key, bytes, damage, trials: 4 * bytes }
    }

    fn run(mut self, header: Option<Header>, claim: Option<u64>) -> Contents {
        let mut entries: Vec<Located> = Vec::new();
        let mut at = format::HEADER_BYTES;
        // Thinning leaves gaps in the ids on purpose.
        let thinned = header.is_some_and(|h| h.step_us > 0);
        let mut expected = header.filter(|_| !thinned).map(|h| h.first_id);
        loop {
            let last = entries.last().map(|last| last.id);
            let record = match self.record_at(at, last) {
                Some(record) => record,
                // What a tail calls the end of the records is believed if they end there.
                None if claim == Some(at) => break,
                None => match self.next_after(at, last) {
                    Next::Record(offset, record) => {
                        if let Some(expected) = expected {
                            self.damage.frames_between += record.head.id.0.saturating_sub(expected);
                        }
                        self.damage.bytes += offset - at;
                        at = offset;
                        record
                    }
                    Next::End => break,
                    Next::Torn(end) => {
                        self.damage.bytes += end - at;
                        self.damage.torn_tail = true;
                        break;
                    }
                },
            };
            let RecordHead { id, media_time, camera, .. } = record.head;
            entries.push(Located { id, media_time, camera, offset: at as u32 });
            expected = (!thinned).then_some(id.0 + 1);
            at += record.bytes().len() as u64;
        }
        if let Some(count) = header.map(|h| u64::from(h.count)).filter(|&count| count > 0) {
            // The file was written whole: the header knows.
            self.damage.frames_between = count.saturating_sub(entries.len() as u64);
            self.damage.torn_tail = false;
        }
        let source = Source::Scan(self.damage);
        Contents { header, entries, records_end: at, bytes: self.bytes, source }
    }

    /// The sound record at `at`, if it is later than `last`.
    fn record_at(&mut self, at: u64, last: Option<FrameId>) -> Option<Record> {
        match read_record(self.file, self.key, at, self.bytes.min(u64::from(u32::MAX))) {
            Ok(record) => Some(record.head.id).gt(&last).then_some(record),
            Err(BadRecord::Damaged) => None,
            Err(BadRecord::Io(_)) => {
                self.damage.unreadable = true;
                None
            }
        }
    }

    /// What `record_at` says, as long as there are trials left.
    fn try_record_at(&mut self, at: u64, last: Option<FrameId>) -> Option<Record> {
        let mut head = [0; format::RECORD_HEAD_BYTES as usize];
        self.file.read_at(&mut head, at).ok()?;
        let cost = RecordHead::decode(&head)?.record_bytes();
        let left = self.trials.checked_sub(cost)?;
        let record = self.record_at(at, last);
        if record.is_none() {
            self.trials = left;
        }
        record
    }

    /// Looks for the next sound record behind `from`, which is none.
    fn next_after(&mut self, from: u64, last: Option<FrameId>) -> Next {
        let mut buffer = Vec::new();
        let mut chunk = from;
        let mut torn_to = None;
        while chunk < self.bytes {
            let length = SEARCH_BYTES.min(self.bytes - chunk);
            buffer.resize(length as usize, 0);
            if self.file.read_at(&mut buffer, chunk).is_err() {
                self.damage.unreadable = true;
                torn_to = Some(chunk + length);
                chunk += length;
                continue;
            }
            if chunk == from && buffer.starts_with(&format::FOOTER_MAGIC) {
                return Next::End;
            }
            let offsets = (chunk..).step_by(format::ALIGN as usize);
            for (piece, at) in buffer.chunks(format::ALIGN as usize).zip(offsets) {
                let candidate = at > from && piece.starts_with(&format::RECORD_MAGIC);
                if candidate && let Some(record) = self.try_record_at(at, last) {
                    return Next::Record(at, record);
                }
                if let Some(byte) = piece.iter().rposition(|&b| b != 0) {
                    torn_to = Some(at + byte as u64 + 1);
                }
            }
            chunk += length;
        }
        torn_to.map_or(Next::End, Next::Torn)
    }
}
