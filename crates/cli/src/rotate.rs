use crate::args::Rotate;
use crate::exit::Exit;
pub(crate) async fn run(_args: Rotate) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
