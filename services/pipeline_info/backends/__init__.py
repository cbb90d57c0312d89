"""Where runs are kept: one module per backend, all behind `repository.PipelineInfoRepository`."""
