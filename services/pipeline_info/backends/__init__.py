"""Where runs are kept: one module a backend, all behind `repository.PipelineInfoRepository`."""
