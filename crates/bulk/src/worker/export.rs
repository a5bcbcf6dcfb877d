//! The worker's part of an export.

use cvm_provisioning::DeviceStore;

use super::{Stop, Worker};
use crate::patience::patiently;
use crate::{ExportRequest, ExportStanding, Job, JobStore, Objects, Upload, Work};

impl<R: DeviceStore, J: JobStore, O: Objects> Worker<R, J, O> {
    /// Goes on with an export, and says whether it is done.
    pub(super) async fn export(&self, job: &mut Job, go_on: &mut impl FnMut() -> bool) -> Result<bool, Stop> {
        let id = job.id;
        loop {
            let Work::Export { request, standing } = &mut job.work else { return Ok(true) };
            let upload = match &mut standing.upload {
                Some(upload) => upload,
                nothing => {
                    let id = self.objects.begin(&request.output, id).await.map_err(Stop::at(&request.output))?;
                    nothing.insert(Upload { id, parts: Vec::new(), after: None, whole: false })
                }
            };
            if upload.whole {
                let completed = self.objects.complete(&request.output, &upload.id, &upload.parts, id).await;
                completed.map_err(Stop::at(&request.output))?;
                return Ok(true);
            }
            self.write_part(request, standing).await?;
            if !go_on() {
                return Ok(false);
            }
            self.advance(job).await?;
        }
    }

    async fn write_part(&self, request: &ExportRequest, standing: &mut ExportStanding) -> Result<(), Stop> {
        let Some(upload) = &mut standing.upload else { return Ok(()) };
        let mut part = Vec::new();
        if upload.parts.is_empty() {
            part.extend_from_slice(request.format.header().as_bytes());
        }
        while part.len() < self.portion.bytes && !upload.whole {
            let after = upload.after.clone();
            let registry = &self.operations.registry;
            let page =
                patiently(async || registry.list(&request.filter, after.as_ref(), self.portion.devices).await).await?;
            for device in &page.devices {
                let written = request.format.write(device, request.digests, &mut part);
                written.map_err(|error| Stop::Failed(error.to_string()))?;
            }
            standing.devices += page.devices.len() as u64;
            upload.whole = page.next.is_none();
            upload.after = page.next;
        }
        let number = upload.parts.len() + 1;
        let tag = self.objects.part(&request.output, &upload.id, number, part).await;
        upload.parts.push(tag.map_err(Stop::at(&request.output))?);
        Ok(())
    }
}
