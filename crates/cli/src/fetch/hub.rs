//! `hf:` references. Downloads go into the hub's own cache folder, in its own layout, so that other programs find them
//! too; it is behind the feature `hub`, which brings an HTTP client and TLS.

use lathe_lab::Progress;
use lathe_model::reference::{Home, HubReference, ModelReference};

use super::FetchError;

/// Downloads what a reference names: one file, else the one model of the repository.
#[cfg(not(feature = "hub"))]
pub(crate) fn download(
    reference: &ModelReference,
    _hub: &HubReference,
    _home: &Home,
    _progress: &dyn Progress,
) -> Result<(), FetchError> {
    Err(FetchError::WithoutHub { reference: reference.to_string() })
}

/// Downloads what a reference names: one file, else the one model of the repository.
///
/// `HF_TOKEN` (else the token that the hub's own client has stored) opens gated repositories; `HF_ENDPOINT` names a mirror.
#[cfg(feature = "hub")]
pub(crate) fn download(
    reference: &ModelReference,
    hub: &HubReference,
    home: &Home,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    use hf_hub::api::sync::ApiBuilder;
    use hf_hub::{Cache, Repo, RepoType};

    let explain = |error| enabled::explain(&error, reference, hub);
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut builder =
        ApiBuilder::from_cache(Cache::new(home.hub_cache().to_owned())).with_progress(false).with_retries(2);
    if let Some(token) = variable("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    if let Some(endpoint) = variable("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let repository = builder.build().map_err(explain)?.repo(Repo::with_revision(
        format!("{}/{}", hub.org, hub.name),
        RepoType::Model,
        hub.revision_or_main().to_owned(),
    ));

    let files = match &hub.file {
        Some(file) if file.ends_with(".gguf") => vec![file.clone()],
        _ => {
            let listed = repository.info().map_err(explain)?.siblings;
            let names: Vec<String> = listed.into_iter().map(|file| file.rfilename).collect();
            enabled::wanted(&names, reference, hub)?
        }
    };
    for file in &files {
        let shown = enabled::FileProgress { progress, file };
        repository.download_with_progress(file, shown).map_err(explain)?;
    }
    Ok(())
}

#[cfg(feature = "hub")]
mod enabled {
    use super::{FetchError, HubReference, ModelReference, Progress};
    use hf_hub::api::sync::ApiError;

    /// The bar of one file.
    pub(super) struct FileProgress<'a> {
        pub(super) progress: &'a dyn Progress,
        pub(super) file: &'a str,
    }

    impl hf_hub::api::Progress for FileProgress<'_> {
        fn init(&mut self, size: usize, _filename: &str) {
            self.progress.start(&format!("download {}", self.file), size as u64, "B");
        }

        fn update(&mut self, size: usize) {
            self.progress.advance(size as u64);
        }

        fn finish(&mut self) {
            self.progress.finish();
        }
    }

    /// The files of the repository's one model: safetensors with their description, else the only `.gguf`.
    pub(super) fn wanted(
        names: &[String],
        reference: &ModelReference,
        hub: &HubReference,
    ) -> Result<Vec<String>, FetchError> {
        let problem = |problem: String| FetchError::Hub { reference: reference.to_string(), problem };
        if let Some(file) = &hub.file
            && !names.contains(file)
        {
            return Err(problem(format!("the repository has no file {file}")));
        }
        let top = || names.iter().filter(|name| !name.contains('/'));
        let weights = |name: &str| match &hub.file {
            Some(file) => name == file,
            None => name.ends_with(".safetensors"),
        };
        if top().any(|name| name == "config.json") && names.iter().any(|name| weights(name) && !name.ends_with(".gguf"))
        {
            let described =
                |name: &str| [".json", ".jinja", "merges.txt", "tokenizer.model"].iter().any(|end| name.ends_with(end));
            return Ok(top().filter(|name| described(name) || weights(name)).cloned().collect());
        }
        let gguf: Vec<&String> = top().filter(|name| name.ends_with(".gguf")).collect();
        match gguf.as_slice() {
            [one] => Ok(vec![(*one).clone()]),
            [] => Err(problem("the repository has neither safetensors nor a .gguf file".to_owned())),
            several => {
                let of_file = |file: &&String| {
                    let file = Some((*file).clone());
                    ModelReference::Hub(HubReference { file, ..hub.clone() }).to_string()
                };
                Err(FetchError::SeveralModels {
                    package: reference.to_string(),
                    candidates: several.iter().map(of_file).collect(),
                })
            }
        }
    }

    /// One sentence for what the client reports. It does not give the status apart from its text.
    pub(super) fn explain(error: &ApiError, reference: &ModelReference, hub: &HubReference) -> FetchError {
        let text = error.to_string();
        let has = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        let problem = if has(&["status: 404", "status code 404"]) {
            format!("the hub has no such repository, revision ({}) or file", hub.revision_or_main())
        } else if has(&["status: 401", "status: 403", "status code 401", "status code 403"]) {
            "the hub refuses access: it does not exist, or its terms have to be accepted there and HF_TOKEN be set"
                .to_owned()
        } else if has(&["Lock acquisition"]) {
            "another program is downloading it".to_owned()
        } else if has(&["io:", "I/O", "dns", "failed to lookup", "onnect", "imeout", "host not found"]) {
            format!("the hub can't be reached or the disk can't be written ({text})")
        } else {
            text
        };
        FetchError::Hub { reference: reference.to_string(), problem }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn wanted_of(reference: &str, names: &[&str]) -> Result<Vec<String>, String> {
            let reference: ModelReference = reference.parse().map_err(|error| format!("{error}"))?;
            let ModelReference::Hub(hub) = &reference else {
                return Err("no hub reference".to_owned());
            };
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            wanted(&names, &reference, hub).map_err(|error| error.to_string())
        }

        #[test]
        fn the_model_of_a_repository() {
            let names = [
                "config.json",
                "model.safetensors",
                "pytorch_model.bin",
                "README.md",
                "onnx/model.onnx",
                "tokenizer.json",
            ];
            let files = wanted_of("hf:o/n", &names);
            assert_eq!(files, Ok(["config.json", "model.safetensors", "tokenizer.json"].map(String::from).to_vec()));
            assert_eq!(wanted_of("hf:o/n", &["a.gguf", "README.md"]), Ok(vec!["a.gguf".to_owned()]));
            assert!(wanted_of("hf:o/n", &["a.gguf", "b.gguf"]).is_err_and(|error| error.contains("2 models")));
            assert!(wanted_of("hf:o/n", &["a.bin"]).is_err_and(|error| error.contains("neither")));
            assert!(wanted_of("hf:o/n/x.safetensors", &names).is_err_and(|error| error.contains("no file")));
        }
    }
}
