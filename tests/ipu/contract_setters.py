"""The options of the SDK that each program of contract_sdks.PROGRAMS sets differently from a plain program of its mode.
None: the program does not set what the plain one sets.

The names are those of the table in docs/ipu.md.
"""

from __future__ import annotations

from typing import Any, Dict

SETS: Dict[str, Dict[str, Dict[str, Any]]] = {
    "accumulated": {
        "poptorch": {"Training.gradientAccumulation": 3},
        "popart": {"enableGradientAccumulation": True, "accumulationFactor": 3},
    },
    "replicas": {
        "poptorch": {"deviceIterations": 2, "replicationFactor": 2},
        "popart": {"enableReplicatedGraphs": True, "replicatedGraphCount": 2},
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "timed training": {
        "poptorch": {"deviceIterations": 3, "outputMode": "OutputMode.Final", "Training.gradientAccumulation": 2},
        "popart": {"enableGradientAccumulation": True, "accumulationFactor": 2},
    },
    "final": {
        "poptorch": {"deviceIterations": 3, "outputMode": "OutputMode.Final"},
    },
    "sum": {
        "poptorch": {"deviceIterations": 3, "outputMode": "OutputMode.Sum"},
    },
    "synthetic": {
        "poptorch": {"enableSyntheticData": True},
        "popart": {"syntheticDataMode": "SyntheticDataMode.RandomNormal"},
    },
    "zeros": {
        "poptorch": {"enableSyntheticData": True, "_Popart.syntheticDataMode": 1},
        "popart": {"syntheticDataMode": "SyntheticDataMode.Zeros"},
    },
    "synthetic training": {
        "poptorch": {"outputMode": "OutputMode.Final", "enableSyntheticData": True},
        "popart": {"syntheticDataMode": "SyntheticDataMode.RandomNormal"},
    },
    "mixed precision": {
        "popart": {"constantWeights": False},
    },
    "pipeline": {
        "poptorch": {"Training.gradientAccumulation": 3, "setExecutionStrategy": "poptorch.PipelinedExecution#1"},
        "popart": {
            "virtualGraphMode": "VirtualGraphMode.Manual",
            "enablePipelining": True,
            "enableGradientAccumulation": True,
            "accumulationFactor": 3,
        },
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "sequential pipeline": {
        "poptorch": {"setExecutionStrategy": "poptorch.ShardedExecution#1"},
        "popart": {"virtualGraphMode": "VirtualGraphMode.Manual", "enablePipelining": False},
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--available-memory-proportion": {
        "poptorch": {
            "setAvailableMemoryProportion": {"IPU0": 0.3},
            "_Popart.lstmOptions": {"availableMemoryProportion": "0.3"},
        },
        "popart": {
            "convolutionOptions": {"availableMemoryProportion": "0.3"},
            "matmulOptions": {"availableMemoryProportion": "0.3"},
            "lstmOptions": {"availableMemoryProportion": "0.3"},
        },
        "tensorflow_ipu": {
            "convolutions.poplar_options": {"availableMemoryProportion": "0.3"},
            "matmuls.poplar_options": {"availableMemoryProportion": "0.3"},
        },
    },
    "--available-memory-proportion, an IPU each": {
        "poptorch": {
            "Training.gradientAccumulation": 3,
            "setAvailableMemoryProportion": {"IPU0": 0.2, "IPU1": 0.4},
            "_Popart.lstmOptions": {"availableMemoryProportion": "0.2"},
            "setExecutionStrategy": "poptorch.PipelinedExecution#1",
        },
        "popart": {
            "virtualGraphMode": "VirtualGraphMode.Manual",
            "enablePipelining": True,
            "enableGradientAccumulation": True,
            "accumulationFactor": 3,
        },
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--partials-type-matmul": {
        "poptorch": {"_Popart.partialsTypeMatMuls": "half", "_Popart.lstmOptions": {"partialsType": "half"}},
        "popart": {"partialsTypeMatMuls": "half", "lstmOptions": {"partialsType": "half"}},
        "tensorflow_ipu": {"matmuls.poplar_options": {"partialsType": "half"}},
    },
    "--partials-type-conv": {
        "poptorch": {"_Popart.convolutionOptions": {"partialsType": "half"}},
        "popart": {"convolutionOptions": {"partialsType": "half"}},
        "tensorflow_ipu": {"convolutions.poplar_options": {"partialsType": "half"}},
    },
    "--half-partial": {
        "poptorch": {
            "_Popart.partialsTypeMatMuls": "half",
            "_Popart.convolutionOptions": {"partialsType": "half"},
            "_Popart.lstmOptions": {"partialsType": "half"},
        },
        "popart": {
            "partialsTypeMatMuls": "half",
            "convolutionOptions": {"partialsType": "half"},
            "lstmOptions": {"partialsType": "half"},
        },
        "tensorflow_ipu": {
            "convolutions.poplar_options": {"partialsType": "half"},
            "matmuls.poplar_options": {"partialsType": "half"},
        },
    },
    "--internal-exchange-target": {
        "poptorch": {"_Popart.engineOptions": {"opt.internalExchangeOptimisationTarget": "balanced"}},
        "popart": {"engineOptions": {"opt.internalExchangeOptimisationTarget": "balanced"}},
        "tensorflow_ipu": {"compilation_poplar_options": {"opt.internalExchangeOptimisationTarget": "balanced"}},
    },
    "--prefetch off": {
        "poptorch": {
            "_Popart.enablePrefetchDatastreams": False,
            "_Popart.engineOptions": {"exchange.enablePrefetch": "false"},
        },
        "popart": {"enablePrefetchDatastreams": False, "engineOptions": {"exchange.enablePrefetch": "false"}},
        "tensorflow_ipu": {
            "compilation_poplar_options": {"exchange.enablePrefetch": "false"},
            "optimizations.prefetch_data_streams": False,
        },
    },
    "--min-latency": {
        "poptorch": {
            "_Popart.enablePrefetchDatastreams": False,
            "_Popart.engineOptions": {"exchange.enablePrefetch": "false"},
        },
        "popart": {"enablePrefetchDatastreams": False, "engineOptions": {"exchange.enablePrefetch": "false"}},
        "tensorflow_ipu": {
            "compilation_poplar_options": {"exchange.enablePrefetch": "false"},
            "optimizations.prefetch_data_streams": False,
        },
    },
    "--num-io-tiles": {
        "poptorch": {
            "TensorLocations.numIOTiles": 32,
            "_Popart.defaultBufferingDepth": 3,
            "setExecutionStrategy": "poptorch.ShardedExecution#1",
        },
        "tensorflow_ipu": {"io_tiles.num_io_tiles": 32, "io_tiles.place_ops_on_io_tiles": True},
    },
    "--stochastic-rounding on": {
        "poptorch": {"Precision.enableStochasticRounding": True},
        "popart": {"enableStochasticRounding": True},
        "tensorflow_ipu": {"floating_point_behaviour.esr": "StochasticRoundingBehaviour.ON"},
    },
    "--stochastic-rounding off": {
        "poptorch": {"Precision.enableStochasticRounding": False},
        "popart": {"enableStochasticRounding": False},
        "tensorflow_ipu": {"floating_point_behaviour.esr": "StochasticRoundingBehaviour.OFF"},
    },
    "--stable-norm": {
        "poptorch": {"enableStableNorm": True},
        "popart": {"enableStableNorm": True},
        "tensorflow_ipu": {"norms.use_stable_statistics": True},
    },
    "--conv-dithering": {
        "poptorch": {"_Popart.convolutionOptions": {"enableConvDithering": "1"}},
        "popart": {"convolutionOptions": {"enableConvDithering": "1"}},
        "tensorflow_ipu": {"convolutions.poplar_options": {"enableConvDithering": "true"}},
    },
    "--partials-type-conv and --conv-dithering": {
        "poptorch": {"_Popart.convolutionOptions": {"partialsType": "half", "enableConvDithering": "1"}},
        "popart": {"convolutionOptions": {"partialsType": "half", "enableConvDithering": "1"}},
        "tensorflow_ipu": {"convolutions.poplar_options": {"partialsType": "half", "enableConvDithering": "true"}},
    },
    "--variable-offloading on": {
        "poptorch": {"TensorLocations.setOptimizerLocation": "poptorch.TensorLocationSettings#1"},
        "popart": {"optimizerStateTensorLocationSettings": "popart.TensorLocationSettings#1"},
    },
    "--variable-offloading off": {
        "poptorch": {"TensorLocations.setOptimizerLocation": "poptorch.TensorLocationSettings#1"},
        "popart": {"optimizerStateTensorLocationSettings": "popart.TensorLocationSettings#1"},
    },
    "--replicated-tensor-sharding": {
        "poptorch": {
            "TensorLocations.setOptimizerLocation": "poptorch.TensorLocationSettings#1",
            "replicationFactor": 2,
        },
        "popart": {
            "enableReplicatedGraphs": True,
            "replicatedGraphCount": 2,
            "optimizerStateTensorLocationSettings": "popart.TensorLocationSettings#1",
        },
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--session-options": {
        "poptorch": {
            "_Popart.explicitRecomputation": True,
            "_Popart.accumulateOuterFragmentSettings.schedule": 3,
            "_Popart.replicatedCollectivesSettings.mergeAllReduceCollectives": True,
        },
        "popart": {"explicitRecomputation": True},
    },
    "--max-cross-replica-buffer-size": {
        "tensorflow_ipu": {"optimizations.maximum_cross_replica_sum_buffer_size": 4096},
    },
    "--engine-options": {
        "poptorch": {"_Popart.engineOptions": {"opt.maxCompilationThreads": "3"}},
        "popart": {"engineOptions": {"opt.maxCompilationThreads": "3"}},
        "tensorflow_ipu": {"compilation_poplar_options": {"opt.maxCompilationThreads": "3"}},
    },
    "all engine options": {
        "poptorch": {
            "_Popart.enablePrefetchDatastreams": False,
            "_Popart.engineOptions": {
                "opt.internalExchangeOptimisationTarget": "cycles",
                "exchange.enablePrefetch": "false",
                "debug.retainDebugInformation": "true",
            },
        },
        "popart": {
            "enablePrefetchDatastreams": False,
            "engineOptions": {
                "opt.internalExchangeOptimisationTarget": "cycles",
                "exchange.enablePrefetch": "false",
                "debug.retainDebugInformation": "true",
            },
        },
        "tensorflow_ipu": {
            "compilation_poplar_options": {
                "opt.internalExchangeOptimisationTarget": "cycles",
                "exchange.enablePrefetch": "false",
                "debug.retainDebugInformation": "true",
            },
            "optimizations.prefetch_data_streams": False,
        },
    },
    "--profile": {
        "poptorch": {"_Popart.engineOptions": {"autoReport.all": "true", "autoReport.directory": "reports"}},
        "popart": {"engineOptions": {"autoReport.all": "true", "autoReport.directory": "reports"}},
        "tensorflow_ipu": {"compilation_poplar_options": {"autoReport.all": "true", "autoReport.directory": "reports"}},
    },
    "--cycle-count": {
        "poptorch": {"logCycleCount": True},
        "popart": {"instrumentWithHardwareCycleCounter": True},
    },
    "--ipu-model": {
        "poptorch": {"useIpuModel": True},
    },
    "--compile-only": {
        "poptorch": {"useOfflineIpuTarget": 21},
        "tensorflow_ipu": {
            "device_connection.type": "DeviceConnectionType.PRE_COMPILE",
            "device_connection.version": "ipu21",
            "device_connection.enable_remote_buffers": True,
        },
    },
    "--compile-only to train": {
        "poptorch": {"useOfflineIpuTarget": 2},
        "tensorflow_ipu": {
            "device_connection.type": "DeviceConnectionType.PRE_COMPILE",
            "device_connection.version": "ipu2",
            "device_connection.enable_remote_buffers": True,
        },
    },
    "--executable-cache": {
        "poptorch": {"enableExecutableCaching": "cache"},
        "popart": {"enableEngineCaching": True, "cachePath": "cache"},
    },
    "--device-id": {
        "poptorch": {"useIpuId": 2},
        "tensorflow_ipu": {"select_ipus": 2, "auto_select_ipus": None},
    },
    "--recompute auto": {
        "poptorch": {"_Popart.autoRecomputation": 1},
        "popart": {"autoRecomputation": "RecomputationType.Standard"},
        "tensorflow_ipu": {"allow_recompute": True},
    },
    "--recompute auto in a pipeline": {
        "poptorch": {
            "Training.gradientAccumulation": 3,
            "_Popart.autoRecomputation": 3,
            "setExecutionStrategy": "poptorch.PipelinedExecution#1",
        },
        "popart": {
            "virtualGraphMode": "VirtualGraphMode.Manual",
            "enablePipelining": True,
            "enableGradientAccumulation": True,
            "accumulationFactor": 3,
            "autoRecomputation": "RecomputationType.Pipeline",
        },
        "tensorflow_ipu": {"auto_select_ipus": 2, "allow_recompute": True},
    },
    "--recompute manual": {
        "poptorch": {"_Popart.autoRecomputation": 4},
    },
    "--recompute manual in a pipeline": {
        "poptorch": {
            "Training.gradientAccumulation": 3,
            "_Popart.autoRecomputation": 3,
            "setExecutionStrategy": "poptorch.PipelinedExecution#1",
        },
        "popart": {
            "virtualGraphMode": "VirtualGraphMode.Manual",
            "enablePipelining": True,
            "enableGradientAccumulation": True,
            "accumulationFactor": 3,
        },
        "tensorflow_ipu": {"auto_select_ipus": 2, "allow_recompute": True},
    },
    "--pipeline-schedule grouped": {
        "poptorch": {"deviceIterations": 2, "setExecutionStrategy": "poptorch.PipelinedExecution#1"},
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--pipeline-schedule interleaved": {
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--num-io-tiles in a pipeline": {
        "tensorflow_ipu": {"auto_select_ipus": 2, "io_tiles.num_io_tiles": 32, "io_tiles.place_ops_on_io_tiles": True},
    },
    "--no-all-reduce": {
        "tensorflow_ipu": {"auto_select_ipus": 2},
    },
    "--available-memory-proportion, several without a pipeline": {
        "poptorch": {
            "setAvailableMemoryProportion": {"IPU0": 0.1, "IPU1": 0.2},
            "_Popart.lstmOptions": {"availableMemoryProportion": "0.1"},
        },
    },
    "--replicated-tensor-sharding without --variable-offloading": {
        "poptorch": {
            "TensorLocations.setOptimizerLocation": "poptorch.TensorLocationSettings#1",
            "replicationFactor": 2,
        },
        "popart": {
            "enableReplicatedGraphs": True,
            "replicatedGraphCount": 2,
            "optimizerStateTensorLocationSettings": "popart.TensorLocationSettings#1",
        },
    },
}
