//! `logchain stream`.

use logchain::args::{Amount, Stream};
use logchain::exit::Exit;
use logchain::show::Subject;
use logchain_host::Stop;
use logchain_host::stream::{Options, Source, stream};

use crate::report::{self, Watch};

pub(super) async fn run(args: Stream, stop: Stop) -> anyhow::Result<Exit> {
    let events = report::events(args.format, Watch::Terminal);
    let source = match Subject::of_path(&args.log)? {
        Some(subject) => Source::Path(subject.path),
        None => {
            let file = Subject::of_file(&args.log).map(|subject| subject.path);
            Source::Domain(args.log.what, file)
        }
    };
    let mut options = Options::new(source, args.transport);
    options.console = args.log.console;
    options.numbering = args.log.numbering;
    options.connect = args.log.connect.uri;
    options.remote_logchain = args.remote_logchain;
    options.delay = args.delay;
    options.keep = match args.keep {
        Amount::Bytes(bytes) => Some(bytes),
        Amount::All => None,
    };
    options.wait = args.wait;
    options.once = args.once;
    options.leave_gap = args.leave_gap;
    options.uuid = args.uuid;
    super::finished(&stream(options, &events, &stop).await?, Exit::Failed)
}
