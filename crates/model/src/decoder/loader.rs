//! From named parameters to the parts of a decoder.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{Tensor, Var};
use lathe_kernels::matmul::{Arithmetic, Coded, Coding, Packed, Weight};
use rand_distr::{Distribution, Uniform};

use super::adapter::name_of;
use super::experts::Experts;
use super::linear::{Adapted, Factors, Linear, Streamed};
use super::{Coarse, Decoder, Embedding, Factor, FeedForward, Layer, Mlp, Norm, Weights};
use crate::adapter::{AdaptedModule, LoraSpec, Selection};
use crate::ops::mix;
use crate::parameters::{ParameterSource, name_hash, row_generator};
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, FeedForwardSpec, HeadWeight, LayerSpec, MlpShape, MlpSpec, NormParameters,
    NormSpec, Parameter, QkNorm, SharedGate,
};
use crate::{Error, ops};

impl Decoder {
    /// Builds a decoder from its specification and numbers.
    ///
    /// # Errors
    /// The source lacks a parameter or cannot be read.
    pub fn load(spec: DecoderSpec, source: Arc<dyn ParameterSource + Send>, weights: Weights) -> Result<Self, Error> {
        let trained = if weights == Weights::Trainable { Selection::All } else { Selection::None };
        Self::load_training(spec, source, weights, trained, None)
    }

    /// The same with some parameters as variables, or with factors beside some.
    pub(crate) fn load_training(
        spec: DecoderSpec,
        source: Arc<dyn ParameterSource + Send>,
        weights: Weights,
        trained: Selection,
        adapter: Option<(&LoraSpec, Vec<AdaptedModule>)>,
    ) -> Result<Self, Error> {
        let parameters = spec.parameters().into_iter().map(|p| (p.name.clone(), p)).collect();
        let (trainable, factors) = Default::default();
        let mut loader = Loader { source, parameters, weights, trained, factors, trainable, bytes: 0 };
        let mut modules = Vec::new();
        if let Some((spec, adapted)) = adapter {
            adapted.iter().try_for_each(|module| loader.adapt(module, spec))?;
            modules = adapted;
        }
        let embedding = if loader.trained.has("embedding.weight") {
            Embedding::Tensor(loader.tensor("embedding.weight")?)
        } else {
            Embedding::Source(loader.source.clone(), loader.parameter("embedding.weight")?)
        };
        let positions = spec.embedding.positions.map(|_| loader.tensor("positions.weight")).transpose()?;
        let token_types = spec.embedding.token_types.map(|_| loader.tensor("token_types.weight")).transpose()?;
        let mut norm =
            |name: &str, norm: Option<NormSpec>| norm.map(|norm| loader.norm(name, norm, spec.hidden_size)).transpose();
        let embedding_norm = norm("embedding_norm", spec.embedding.norm)?;
        let final_norm = norm("final_norm", spec.final_norm)?;
        let projected = spec.embedding.projected_from.is_some();
        let mut project = |name: &str| if projected { loader.linear(name, Bias::Without).map(Some) } else { Ok(None) };
        let (embedding_in, embedding_out) = (project("embedding_in")?, project("embedding_out")?);
        let layers =
            spec.layers.iter().enumerate().map(|(l, layer)| loader.layer(l, layer)).collect::<Result<_, _>>()?;
        let head = loader.head(&spec, &embedding)?;
        let (trainable, weight_bytes) = (loader.trainable, loader.bytes);
        Ok(Self {
            spec,
            embedding,
            positions,
            token_types,
            embedding_norm,
            embedding_in,
            layers,
            final_norm,
            embedding_out,
            head,
            trainable,
            adapter: modules,
            weight_bytes,
        })
    }
}

struct Loader {
    source: Arc<dyn ParameterSource + Send>,
    parameters: BTreeMap<String, Parameter>,
    weights: Weights,
    /// Which parameters are variables.
    trained: Selection,
    /// What stands beside a parameter.
    factors: HashMap<String, Factors>,
    trainable: BTreeMap<String, Var>,
    /// Bytes in memory so far.
    bytes: usize,
}

impl Loader {
    /// Makes the factors of a module: `A` uniform in ± 1 / √in (Kaiming's with a = √5, as PEFT has it), `B` zero.
    fn adapt(&mut self, module: &AdaptedModule, spec: &LoraSpec) -> Result<(), Error> {
        let bound = 1.0 / (module.inputs as f32).sqrt();
        let uniform = Uniform::new_inclusive(-bound, bound)
            .map_err(|_| candle_core::Error::Msg(format!("`{}` has no inputs", module.tensor)))?;
        let mut a = vec![0.0; spec.rank * module.inputs];
        let first = name_of(&module.parts[0].parameter, 'A');
        for (row, a) in a.chunks_exact_mut(module.inputs).enumerate() {
            let mut rng = row_generator(spec.seed, &first, row);
            a.iter_mut().for_each(|x| *x = uniform.sample(&mut rng));
        }
        let key = mix(spec.seed, name_hash(&module.tensor));
        let a = self.variable(&first, a, &[spec.rank, module.inputs])?;
        for part in &module.parts {
            let rows = part.rows.len();
            let b = vec![0.0; rows * spec.rank];
            let b = self.variable(&name_of(&part.parameter, 'B'), b, &[rows, spec.rank])?;
            let factors = Factors { a: a.clone(), b, scale: spec.scale(), dropout: spec.dropout, key };
            self.factors.insert(part.parameter.clone(), factors);
        }
        Ok(())
    }

    fn variable(&mut self, name: &str, values: Vec<f32>, shape: &[usize]) -> Result<Tensor, Error> {
        self.bytes += size_of_val(&values[..]);
        let var = Var::from_tensor(&ops::tensor(values, shape)?)?;
        let tensor = var.as_tensor().clone();
        self.trainable.insert(name.into(), var);
        Ok(tensor)
    }

    fn layer(&mut self, l: usize, spec: &LayerSpec) -> Result<Layer, Error> {
        let (a, norms) = (&spec.attention, &spec.norms);
        let name = |part: &str| format!("layers.{l}.{part}");
        let hidden = self.parameter(&name("attention.query.weight"))?.shape[1];
        let query_norm = self.qk_norm(&name("attention.query_norm"), a, a.heads)?;
        let key_norm = self.qk_norm(&name("attention.key_norm"), a, a.kv_heads)?;
        let mut norm = |part: &str, spec: Option<NormSpec>, width| {
            spec.map(|spec| self.norm(&name(part), spec, width)).transpose()
        };
        let before_attention = norm("before_attention", norms.before_attention, hidden)?;
        let after_attention = norm("after_attention", norms.after_attention, hidden)?;
        let before_feed_forward = norm("before_feed_forward", norms.before_feed_forward, hidden)?;
        let after_feed_forward = norm("after_feed_forward", norms.after_feed_forward, hidden)?;
        Ok(Layer {
            before_attention,
            query: self.linear(&name("attention.query"), a.qkv_bias)?,
            key: self.linear(&name("attention.key"), a.qkv_bias)?,
            value: self.linear(&name("attention.value"), a.qkv_bias)?,
            output: self.linear(&name("attention.output"), a.output_bias)?,
            query_norm,
            key_norm,
            after_attention,
            before_feed_forward,
            feed_forward: self.feed_forward(l, &spec.feed_forward)?,
            after_feed_forward,
        })
    }

    fn feed_forward(&mut self, l: usize, spec: &FeedForwardSpec) -> Result<FeedForward, Error> {
        let spec = match spec {
            FeedForwardSpec::Dense(mlp) => {
                return Ok(FeedForward::Dense(self.mlp(&format!("layers.{l}.feed_forward"), mlp)?));
            }
            FeedForwardSpec::Experts(experts) => experts,
        };
        let name = |part: &str| format!("layers.{l}.experts.{part}");
        let shared_gate = spec.shared.as_ref().filter(|shared| shared.gate == SharedGate::Sigmoid);
        Ok(FeedForward::Experts(Experts {
            router: self.linear(&name("router"), Bias::Without)?,
            experts: (0..spec.count)
                .map(|e| self.mlp(&name(&e.to_string()), &spec.expert))
                .collect::<Result<_, _>>()?,
            shared: spec.shared.as_ref().map(|shared| self.mlp(&name("shared"), &shared.mlp)).transpose()?,
            shared_gate: shared_gate.map(|_| self.linear(&name("shared_gate"), Bias::Without)).transpose()?,
            spec: spec.clone(),
        }))
    }

    fn mlp(&mut self, name: &str, spec: &MlpSpec) -> Result<Mlp, Error> {
        let gate = match spec.shape {
            MlpShape::Gated => Some(self.linear(&format!("{name}.gate"), spec.bias)?),
            MlpShape::Plain => None,
        };
        Ok(Mlp {
            gate,
            up: self.linear(&format!("{name}.up"), spec.bias)?,
            down: self.linear(&format!("{name}.down"), spec.bias)?,
            spec: spec.clone(),
        })
    }

    fn head(&mut self, spec: &DecoderSpec, embedding: &Embedding) -> Result<Option<Linear>, Error> {
        let bias = (spec.head.bias == Bias::With).then_some("head.bias");
        let head = match (spec.head.weight, embedding) {
            (HeadWeight::Absent, _) => return Ok(None),
            (HeadWeight::Tied, Embedding::Tensor(table)) => {
                let bias = bias.map(|bias| self.tensor(bias)).transpose()?;
                Linear::Trainable(table.clone(), self.arithmetic(), bias)
            }
            (HeadWeight::Tied, Embedding::Source(..)) => self.linear_with("embedding.weight", bias)?,
            (HeadWeight::Own, _) => self.linear_with("head.weight", bias)?,
        };
        Ok(Some(head))
    }

    fn parameter(&self, name: &str) -> Result<Parameter, Error> {
        self.parameters
            .get(name)
            .cloned()
            .ok_or_else(|| candle_core::Error::Msg(format!("no parameter `{name}` in this architecture")).into())
    }

    fn values(&mut self, name: &str) -> Result<(Vec<f32>, Parameter), Error> {
        let parameter = self.parameter(name)?;
        let mut values = vec![0.0; parameter.elements()];
        let rows = if parameter.shape.len() < 2 { 1 } else { parameter.shape[0] };
        self.source.rows(&parameter, 0..rows, &mut values)?;
        self.bytes += size_of_val(&values[..]);
        Ok((values, parameter))
    }

    /// A parameter as a tensor; a variable when training.
    fn tensor(&mut self, name: &str) -> Result<Tensor, Error> {
        let (values, parameter) = self.values(name)?;
        let tensor = ops::tensor(values, parameter.shape)?;
        if !self.trained.has(name) {
            return Ok(tensor);
        }
        let var = Var::from_tensor(&tensor)?;
        let tensor = var.as_tensor().clone();
        self.trainable.insert(name.into(), var);
        Ok(tensor)
    }

    fn norm(&mut self, name: &str, spec: NormSpec, width: usize) -> Result<Norm, Error> {
        let factor = match spec.parameters {
            NormParameters::None => Factor::Whole(ops::tensor(vec![1.0; width], width)?),
            NormParameters::Weight | NormParameters::WeightAndBias => {
                let weight = self.tensor(&format!("{name}.weight"))?;
                Self::factor(vec![weight], spec.offset)?
            }
        };
        let bias = match spec.parameters {
            NormParameters::WeightAndBias => Some(self.tensor(&format!("{name}.bias"))?),
            NormParameters::None | NormParameters::Weight => None,
        };
        Ok(Norm { kind: spec.kind, eps: spec.eps, width, factor, bias })
    }

    fn factor(parts: Vec<Tensor>, offset: f32) -> Result<Factor, Error> {
        let is_trained = parts.iter().any(Tensor::is_variable);
        let factor = Factor::Trained { parts, offset };
        if is_trained { Ok(factor) } else { Ok(Factor::Whole(factor.now()?)) }
    }

    /// The norm of queries or of keys.
    fn qk_norm(&mut self, name: &str, spec: &AttentionSpec, heads: usize) -> Result<Option<Norm>, Error> {
        Ok(match spec.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead(norm) => Some(self.norm(name, norm, spec.head_dim)?),
            QkNorm::Whole(norm) => Some(self.norm(name, norm, heads * spec.head_dim)?),
            QkNorm::EachHead(norm) => {
                let weights: Vec<Tensor> =
                    (0..heads).map(|h| self.tensor(&format!("{name}.{h}.weight"))).collect::<Result<_, _>>()?;
                let factor = Self::factor(weights, 0.0)?;
                Some(Norm { kind: norm.kind, eps: norm.eps, width: spec.head_dim, factor, bias: None })
            }
        })
    }

    fn linear(&mut self, name: &str, bias: Bias) -> Result<Linear, Error> {
        let bias_name = format!("{name}.bias");
        self.linear_with(&format!("{name}.weight"), (bias == Bias::With).then_some(bias_name.as_str()))
    }

    fn linear_with(&mut self, weight: &str, bias: Option<&str>) -> Result<Linear, Error> {
        if self.trained.has(weight) {
            let bias = bias.map(|bias| self.tensor(bias)).transpose()?;
            return Ok(Linear::Trainable(self.tensor(weight)?, self.arithmetic(), bias));
        }
        let (name, parameter) = (weight, self.parameter(weight)?);
        if let Some(bias) = bias.filter(|bias| self.trained.has(bias)) {
            let bias = self.tensor(bias)?;
            let weight = self.weight(&parameter)?;
            self.bytes += weight.bytes();
            return Ok(Linear::Biased(Arc::new(weight), bias));
        }
        let bias = bias.map(|bias| self.values(bias)).transpose()?.map(|(values, _)| Arc::new(values));
        if self.weights == Weights::Streamed {
            return Ok(Linear::Streamed(Box::new(Streamed { source: self.source.clone(), weight: parameter, bias })));
        }
        let weight = self.weight(&parameter)?;
        self.source.release(&parameter);
        self.bytes += weight.bytes();
        let weight = Arc::new(weight);
        if let Some(factors) = self.factors.remove(name) {
            return Ok(Linear::Adapted(Box::new(Adapted { weight, bias, factors, merged: None })));
        }
        Ok(Linear::Frozen(weight, bias))
    }

    /// How weights on the tape are multiplied.
    fn arithmetic(&self) -> Arithmetic {
        match self.weights {
            Weights::Coarse(_) => Arithmetic::Bf16,
            Weights::Frozen | Weights::Streamed | Weights::Trainable => Arithmetic::F32,
        }
    }

    /// A matrix in the precision of its source, or of what it is multiplied in.
    fn weight(&self, parameter: &Parameter) -> Result<Weight, Error> {
        let (n, k) = (parameter.shape[0], parameter.shape[1]);
        let rows = |first, count, rows: &mut [f32]| self.source.rows(parameter, first..first + count, rows);
        let stored = self.source.coding(parameter);
        let (coding, arithmetic) = match self.weights {
            Weights::Coarse(Coarse::Bf16) => (Some(Coding::Bf16), Arithmetic::Bf16),
            Weights::Coarse(Coarse::Native) => match stored {
                Some(Coding::Groups(_)) => (stored, Arithmetic::Int8),
                Some(Coding::Bf16) => (stored, Arithmetic::Bf16),
                Some(Coding::F16) | None => (stored, Arithmetic::F32),
            },
            Weights::Frozen | Weights::Streamed | Weights::Trainable => (stored, Arithmetic::F32),
        };
        let Some(coding) = coding else {
            let mut packed = Packed::zeros(k, n);
            packed.fill_columns(rows)?;
            return Ok(Weight::Floats(packed));
        };
        let mut coded = Coded::zeros(coding, k, n);
        match coding {
            Coding::F16 | Coding::Bf16 => coded.fill_halves(rows)?,
            Coding::Groups(_) => {
                coded.fill_groups(|first, count, rows| self.source.group_rows(parameter, first..first + count, rows))?
            }
        }
        Ok(Weight::Coded(coded, arithmetic))
    }
}
