"""Wrong versions of the formulas, each a line changed, and the test that must notice. `python
tests/mutants.py` prints README.md's table.

A test that passes on the right code proves little; that it fails on the wrong code is what makes
it a test.
"""
import importlib
import inspect
import itertools
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Mutant:
    function: str       # module.function
    right: str          # what stands in its source, as often as it does
    wrong: str          # what stands there instead
    breaks: str
    caught_by: str      # test module::test function


MUTANTS = [
    Mutant(*row)
    for row in (
        (
            "nanorlhf.functional.token_logprobs",
            "ids[:, 1:, None]",
            "ids[:, :-1, None]",
            "each column speaks about the token before",
            "test_functional::test_token_logprobs_and_entropy_against_a_loop",
        ),
        (
            "nanorlhf.functional.token_logprobs",
            "logits / temperature",
            "logits",
            "scores another distribution than was sampled from",
            "test_functional::test_token_logprobs_and_entropy_against_a_loop",
        ),
        (
            "nanorlhf.functional.shift_right",
            "F.pad(x[:, :-1], (1, 0))",
            "x",
            "values shifted by one: the critic sees the token that it judges",
            "test_exact::test_critic_regresses_onto_backward_induction",
        ),
        (
            "nanorlhf.functional.last_token",
            "(columns * mask).amax(1, keepdim=True)",
            "(columns * mask).amax(1, keepdim=True) - 1",
            "the score is read before the end token",
            "test_functional::test_masks",
        ),
        (
            "nanorlhf.functional.whiten",
            "torch.rsqrt",
            "torch.reciprocal",
            "divides by the variance, not by its root",
            "test_functional::test_whiten_sees_masked_tokens_only",
        ),
        (
            "nanorlhf.functional.kl_estimate",
            "logp - ref_logp",
            "ref_logp - logp",
            "every KL has its sign turned",
            "test_exact::test_value_of_the_estimators",
        ),
        (
            "nanorlhf.functional.kl_estimate",
            "d ** 2 / 2",
            "d ** 2",
            "k2 pulls twice as hard",
            "test_exact::test_gradient_of_the_estimators_in_the_loss",
        ),
        (
            "nanorlhf.functional.kl_estimate",
            "torch.exp(-d) - 1 + d",
            "torch.exp(d) - 1 - d",
            "k3 of the inverted ratio: no KL of anything",
            "test_exact::test_value_of_the_estimators",
        ),
        (
            "nanorlhf.functional.aggregate",
            "(len(loss) * max_len)",
            "mask.sum()",
            "1/length for the fixed normaliser",
            "test_exact::test_gradient_is_exact_with_fixed_and_kl_in_the_reward",
        ),
        (
            "nanorlhf.functional.aggregate",
            "masked_mean(loss, mask, dim=1).mean()",
            "masked_mean(loss, mask)",
            "token aggregation for sequence",
            "test_grpo::test_loss_and_gradient_by_definition",
        ),
        (
            "nanorlhf.logprobs.masked_logprobs",
            "index_select(0, where - 1)",
            "index_select(0, where)",
            "a token is asked about itself",
            "test_logprobs::test_values_and_gradients_of_the_plain_form",
        ),
        (
            "nanorlhf.logprobs.masked_logprobs",
            " / temperature",
            "",
            "scores another distribution than was sampled from",
            "test_logprobs::test_values_and_gradients_of_the_plain_form",
        ),
        (
            "nanorlhf.rollout.sample_token",
            "(temperature or 1.0)",
            "1.0",
            "samples at temperature 1 whatever was asked for",
            "test_ppo::test_right_path_trips_nothing",
        ),
        (
            "nanorlhf.rollout._right_pad",
            "columns < (starts + lengths)",
            "columns < (starts + lengths - 1)",
            "the end token out of the mask: never trained",
            "test_exact::test_sampling_draws_each_answer_as_often_as_it_should",
        ),
        (
            "train_ppo.token_rewards",
            "-beta *",
            "beta *",
            "pays for going away from the reference",
            "test_ppo::test_token_rewards_by_hand",
        ),
        (
            "train_ppo.token_rewards",
            "amax(1, keepdim=True)",
            "amax(1, keepdim=True) - 1",
            "the score on the token before the last",
            "test_ppo::test_token_rewards_by_hand",
        ),
        (
            "train_ppo.token_rewards",
            "* mask)",
            "* torch.ones_like(mask))",
            "the score on a pad: nobody earns it",
            "test_ppo::test_token_rewards_by_hand",
        ),
        (
            "train_ppo.gae",
            "delta + gamma * lam * advantage",
            "delta",
            "what a token leads to is not its own: the KL on its own token only",
            "test_exact::test_kl_is_paid_for_what_comes_after",
        ),
        (
            "train_ppo.gae",
            "gamma * next_value - values",
            "gamma * next_value + values",
            "the surprise is no difference",
            "test_exact::test_gradient_of_ppo",
        ),
        (
            "train_ppo.gae",
            "next_value = torch.where(mask[:, t], values[:, t], next_value)",
            "next_value = values[:, t]",
            "the values of pads and holes leak in",
            "test_ppo::test_gae_equals_its_definition",
        ),
        (
            "train_ppo.gae",
            "advantages + values, 0.0",
            "advantages, 0.0",
            "the critic learns advantages for returns",
            "test_ppo::test_gae_by_hand",
        ),
        (
            "nanorlhf.policy_losses.ratios",
            "logp - old_logp",
            "old_logp - logp",
            "inverted ratio",
            "test_ppo::test_policy_loss_inside_the_clip_is_the_ratio",
        ),
        (
            "nanorlhf.policy_losses.clipped_loss",
            "-advantages",
            "advantages",
            "flipped sign: learns what is bad",
            "test_ppo::test_policy_loss_on_policy_is_plain_policy_gradient",
        ),
        (
            "nanorlhf.policy_losses.clipped_loss",
            "torch.maximum",
            "torch.minimum",
            "optimistic: what went wrong is clipped, what went too far is not",
            "test_ppo::test_policy_loss_is_clipped_on_both_sides",
        ),
        (
            "train_ppo.value_loss",
            "torch.maximum",
            "torch.minimum",
            "the value clip rewards what it should hold back",
            "test_ppo::test_value_loss_by_hand",
        ),
        (
            "train_ppo.train",
            "return shift_right(after)",
            "return after",
            "the critic sees the token that it judges, in the script alone",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_ppo.train",
            "last_token(after, mask)",
            "after[:, -1]",
            "the score is read on a pad",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_ppo.train",
            " - cfg.unfinished * ~out.finished",
            "",
            "a cut-off answer costs nothing",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_ppo.train",
            "logprobs_of(ref, ids, mask)",
            "logprobs_of(policy, ids, mask)",
            "the KL to itself: free",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_ppo.train",
            "advantages = whiten(advantages, mask)",
            "advantages = whiten(advantages, mask); returns = advantages + old_values",
            "returns taken after whitening: the critic chases noise",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_ppo.train",
            "advantages = whiten(advantages, mask)",
            "pass",
            "no whitening: the step follows the rewards' scale",
            "test_exact_main::test_main_of_ppo_credits_what_was_earned",
        ),
        (
            "train_grpo.group_advantages",
            "scores - kl - baseline",
            "scores - kl - (scores - kl).mean()",
            "a baseline that has seen the answers it judges",
            "test_grpo::test_advantages_by_hand",
        ),
        (
            "train_grpo.group_advantages",
            "scores - scores.mean(1, keepdim=True)",
            "scores - scores.mean()",
            "one baseline for all prompts: easy ones look good",
            "test_grpo::test_what_a_change_of_the_scores_does",
        ),
        (
            "train_grpo.group_advantages",
            "* K / (K - 1)",
            "* (K - 1) / K",
            "K/(K-1) upside down",
            "test_grpo::test_rloo_is_the_score_less_the_mean_of_the_others",
        ),
        (
            "train_grpo.group_advantages",
            "scores.std(1, keepdim=True)",
            "(scores - kl).std(1, keepdim=True)",
            "the KL's noise in the std",
            "test_grpo::test_the_kl_comes_off_before_the_baseline_and_stays_out_of_the_std",
        ),
        (
            "train_grpo.group_advantages",
            "return advantages.masked_fill(is_flat(scores)[:, None], 0.0)",
            "return advantages",
            "a tied group follows the KL's noise, divided by 1e-4",
            "test_grpo::test_equal_scores_and_unequal_kl",
        ),
        (
            "train_grpo.group_advantages",
            "(kl - kl.mean(1, keepdim=True))",
            "(kl - kl.mean(1, keepdim=True)).masked_fill(is_flat(scores)[:, None], 0.0)",
            "the KL of a tied group is lost",
            "test_exact::test_gradient_is_exact_where_scores_tie",
        ),
        (
            "train_grpo.group_advantages",
            'kind == "grpo"',
            'kind in ("grpo", "dr_grpo")',
            "the std left in Dr. GRPO",
            "test_exact::test_gradient_is_exact_with_fixed_and_kl_in_the_reward",
        ),
        (
            "train_grpo.group_advantages",
            "scores.std(1, keepdim=True)",
            "scores.std(1, keepdim=True, unbiased=False)",
            "the biased std",
            "test_grpo::test_advantages_by_hand",
        ),
        (
            "train_grpo.group_advantages",
            "(scores - scores.mean(1, keepdim=True)).masked_fill(is_flat(scores)[:, None], 0.0)",
            "(scores - scores.mean(1, keepdim=True))",
            "flat groups teach rounding errors, divided by 1e-4",
            "test_grpo::test_a_group_without_spread_gives_exact_zeros",
        ),
        (
            "train_grpo.is_flat",
            "scores.amax(1) == scores.amin(1)",
            "scores.std(1) == 0",
            "flat groups that a rounded std hides",
            "test_grpo::test_a_group_without_spread_gives_exact_zeros",
        ),
        (
            "nanorlhf.policy_losses.ratios",
            "logp - old_logp",
            "old_logp - logp",
            "inverted ratio",
            "test_grpo::test_loss_and_gradient_by_definition",
        ),
        (
            "nanorlhf.policy_losses.clipped_loss",
            "clamp(1 - clip_low, 1 + clip_high)",
            "clamp(1 - clip_high, 1 + clip_low)",
            "the clip's sides swapped",
            "test_grpo::test_where_the_clip_stops_the_gradient",
        ),
        (
            "nanorlhf.policy_losses.clipped_loss",
            "torch.maximum",
            "torch.minimum",
            "optimistic for pessimistic",
            "test_grpo::test_where_the_clip_stops_the_gradient",
        ),
        (
            "nanorlhf.policy_losses.cispo_loss",
            ".detach()",
            "",
            "CISPO's weight is learned too",
            "test_grpo::test_loss_and_gradient_by_definition",
        ),
        (
            "nanorlhf.policy_losses.ratios",
            "masked_mean(log_ratio, mask, dim=1)",
            "log_ratio.sum(1)",
            "GSPO's ratio not normalised by length",
            "test_grpo::test_statistics_by_hand",
        ),
        (
            "train_grpo.train",
            'cfg.advantage, kept["baseline"],',
            "cfg.advantage, (scores - price).mean().item(),",
            "the baseline includes the current batch",
            "test_exact_main::test_main_of_grpo_credits_what_was_earned",
        ),
        (
            "train_grpo.train",
            'price = cfg.beta * kls["k1"]',
            'price = -cfg.beta * kls["k1"]',
            "paid for going away from the reference",
            "test_exact_main::test_main_of_grpo_credits_what_was_earned",
        ),
        (
            "train_grpo.train",
            'cfg.beta * kls["k1"]',
            'cfg.beta * kls["k3"]',
            "k3 in the reward",
            "test_exact_main::test_main_of_grpo_credits_what_was_earned",
        ),
        (
            "train_grpo.write",
            "[prompt for prompt in prompts for _ in range(K)]",
            "prompts * K",
            "groups of answers to different prompts",
            "test_exact_main::test_main_of_grpo_credits_what_was_earned",
        ),
        (
            "train_grpo.train",
            "loss + cfg.beta",
            "loss - cfg.beta",
            "the KL in the loss pushes away",
            "test_exact_main::test_main_of_grpo_is_held_by_a_kl_in_the_loss",
        ),
        (
            "train_grpo.train",
            "flat = is_flat(scores.view(P, K))",
            "flat = is_flat((scores - price).view(P, K))",
            "the KL hides that all answers earned the same",
            "test_exact_main::test_main_of_grpo_leaves_flat_groups_out",
        ),
        (
            "train_grpo.train",
            "~flat.repeat_interleave(K)",
            "flat.repeat_interleave(K)",
            "only flat groups are kept",
            "test_exact_main::test_main_of_grpo_leaves_flat_groups_out",
        ),
        (
            "train_grpo.train",
            "~flat.repeat_interleave(K)",
            "~flat.repeat(K)",
            "flat groups mixed up with others",
            "test_exact_main::test_main_of_grpo_leaves_flat_groups_out",
        ),
        (
            "train_grpo.train",
            "in_use &= out.finished",
            "in_use &= ~out.finished",
            "only answers that were cut off teach",
            "test_exact_main::test_main_of_grpo_leaves_out_what_was_cut_off",
        ),
        (
            "train_grpo.refill",
            "torch.cat([scores[~gone], new_scores])",
            "torch.cat([new_scores, scores[~gone]])",
            "new groups get the scores of others",
            "test_exact_main::test_main_of_grpo_fills_up_with_groups_that_differ",
        ),
        (
            "nanorlhf.rollout.replaced",
            "torch.cat([out.finished[~gone], new.finished])",
            "torch.cat([new.finished, out.finished[~gone]])",
            "whether an answer ends is said of another one",
            "test_rollout::test_replaced_rows",
        ),
        (
            "train_grpo.overlong_penalty",
            "(longest - buffer - lengths)",
            "(longest - lengths)",
            "nothing is too long",
            "test_grpo::test_the_overlong_penalty_by_hand",
        ),
        (
            "nanorlhf.policy_losses.sapo_loss",
            "advantages > 0",
            "advantages < 0",
            "good answers fade as bad ones should",
            "test_grpo::test_the_gate_of_sapo",
        ),
        (
            "nanorlhf.policy_losses.maxrl_advantages",
            "(rewards - mean) / mean",
            "rewards / mean",
            "no baseline: one term more, and more noise",
            "test_grpo::test_maxrl_on_average",
        ),
        (
            "nanorlhf.policy_losses.gdpo_advantages",
            "parts.std(1, keepdim=True)",
            "parts.std()",
            "one scale for all parts: the widest one decides",
            "test_grpo::test_gdpo_forgets_each_part_s_scale",
        ),
        (
            "nanorlhf.policy_losses.off_policy_mask",
            "old_logp - logp",
            "logp - old_logp",
            "drops what has become likelier",
            "test_grpo::test_what_the_off_policy_mask_drops",
        ),
        (
            "nanorlhf.distillation.token_divergence",
            "return _kl(teacher, student)",
            "return _kl(student, teacher)",
            "forward KL is reverse KL",
            "test_distill::test_divergences_by_hand",
        ),
        (
            "nanorlhf.distillation.token_divergence",
            "teacher + math.log(mix), student + math.log(1 - mix)",
            "teacher + math.log(1 - mix), student + math.log(mix)",
            "the mixture's weights exchanged: other limits",
            "test_distill::test_limits_of_js",
        ),
        (
            "nanorlhf.distillation.token_divergence",
            "mix * _kl(teacher, mixture) + (1 - mix)",
            "(1 - mix) * _kl(teacher, mixture) + mix",
            "the weights of js's two KLs exchanged",
            "test_distill::test_limits_of_js",
        ),
        (
            "nanorlhf.distillation._kl",
            "p.exp() * (p - q)",
            "q.exp() * (p - q)",
            "the mean over the other distribution: no KL, and negative",
            "test_distill::test_divergences_by_hand",
        ),
        (
            "nanorlhf.distillation.reinforce_loss",
            ".detach()",
            "",
            "the student's own log-prob counts twice",
            "test_distill::test_reinforce_is_the_same_on_average",
        ),
        (
            "nanorlhf.distillation.reinforce_loss",
            "teacher_logp - logp",
            "logp - teacher_logp",
            "learns what the teacher would not say",
            "test_distill::test_reinforce_is_the_same_on_average",
        ),
        (
            "nanorlhf.distillation.reinforce_loss",
            "-advantages * logp",
            "logp - teacher_logp",
            "backward through the sampled log-ratio: 0 on average",
            "test_distill::test_reinforce_is_the_same_on_average",
        ),
        (
            "nanorlhf.distillation.aligned",
            "x[mask]",
            "x.flatten()",
            "a token gets the teacher's word on another one",
            "test_distill::test_numbers_move_to_the_other_prompt_s_columns",
        ),
        (
            "nanorlhf.distillation.masked_states",
            "hidden[:, :-1]",
            "hidden[:, 1:]",
            "both are asked after the token, not before it",
            "test_distill::test_value_and_gradient_by_enumeration",
        ),
        (
            "nanorlhf.distillation.masked_divergence",
            "teacher_states / temperature",
            "teacher_states",
            "the teacher at another temperature",
            "test_distill::test_values_and_gradients_of_the_plain_form",
        ),
        (
            "nanorlhf.distillation.masked_divergence",
            "torch.no_grad()",
            "torch.enable_grad()",
            "the gradient goes into the teacher too",
            "test_distill::test_values_and_gradients_of_the_plain_form",
        ),
        (
            "train_distill.share",
            "cfg.on_policy * cfg.batch_size",
            "(1 - cfg.on_policy) * cfg.batch_size",
            "the shares of the two writers exchanged",
            "test_distill::test_who_writes_what_and_what_it_counts",
        ),
        (
            "train_distill.told_more",
            "len(prompt) - prompt[::-1].index(user)",
            "prompt.index(user) + 1",
            "told before an earlier turn of the chat",
            "test_distill::test_more_is_told_before_the_last_question",
        ),
        (
            "train_distill.train",
            "losses.sum() / B",
            "losses.sum() / mask.sum()",
            "a token weighs by the length of other answers",
            "test_distill::test_who_writes_what_and_what_it_counts",
        ),
        (
            "train_distill.train",
            "kl[:own].sum(1)",
            "kl.sum(1)",
            "the teacher's answers in the student's KL",
            "test_distill::test_who_writes_what_and_what_it_counts",
        ),
        (
            "train_distill.train",
            "aligned(logprobs_of(teacher, teacher_ids, teacher_mask),",
            "aligned(logprobs_of(student, teacher_ids, teacher_mask),",
            "the student is its own teacher",
            "test_distill::test_reinforce_is_given_its_own_tokens",
        ),
        (
            "nanorlhf.preference_losses.log_ratios",
            "policy_chosen - ref_chosen",
            "policy_chosen",
            "the reference forgotten",
            "test_exact::test_dpo_ends_at_pi_star",
        ),
        (
            "nanorlhf.preference_losses.log_ratios",
            "return chosen - rejected",
            "return rejected - chosen",
            "learns what was rejected",
            "test_exact::test_dpo_ends_at_pi_star",
        ),
        (
            "nanorlhf.preference_losses.log_ratios",
            "return chosen - rejected",
            "return beta * chosen - rejected",
            "beta on one side only",
            "test_exact::test_dpo_ends_at_pi_star",
        ),
        (
            "nanorlhf.preference_losses.dpo_loss",
            "F.logsigmoid(beta * h)",
            "F.logsigmoid(h)",
            "a nat costs the same whatever beta is",
            "test_exact::test_dpo_ends_at_pi_star",
        ),
        (
            "nanorlhf.preference_losses.robust_loss",
            " / (1 - 2 * e)",
            "",
            "wrong labels take part of the pull away",
            "test_dpo::test_robust_over_the_flips_is_dpo_on_the_right_labels",
        ),
        (
            "nanorlhf.preference_losses.dpo_norm_loss",
            "policy_rejected / rejected_tokens",
            "policy_rejected / chosen_tokens",
            "an answer divided by the other one's length",
            "test_dpo::test_dpo_norm_divides_each_answer_by_its_own_length",
        ),
        (
            "nanorlhf.preference_losses.apo_zero_loss",
            "+ torch.sigmoid(beta * h_r)",
            "- torch.sigmoid(beta * h_r)",
            "rejected answers are raised",
            "test_dpo::test_apo_zero_is_two_thumbs_at_an_anchor_of_0",
        ),
        (
            "nanorlhf.preference_losses.apo_down_loss",
            "torch.sigmoid(beta * h_c) + 1",
            "1 - torch.sigmoid(beta * h_c) + 1",
            "chosen answers are raised",
            "test_dpo::test_apo_down_lowers_both",
        ),
        (
            "train_rm.centring_loss",
            "chosen + rejected",
            "chosen - rejected",
            "the difference is led to 0, not the mean",
            "test_rm::test_centring_sees_what_differences_do_not",
        ),
        (
            "nanorlhf.preference_losses.ipo_loss",
            "1 / (2 * beta)",
            "2 * beta",
            "another margin to reach",
            "test_dpo::test_ipo_is_least_at_half_an_inverse_beta",
        ),
        (
            "train_rejection.top_per_prompt",
            "max(dim=1)",
            "max(dim=0)",
            "the best prompt of each answer",
            "test_rejection::test_worked_example_top_per_prompt",
        ),
        (
            "train_rejection.expected_best_of",
            "key=scores.__getitem__",
            "key=values.__getitem__",
            "the best gold, not the gold of the proxy's choice",
            "test_rejection::test_expected_best_of_equals_all_subsets",
        ),
        (
            "train_rejection.expected_best_of",
            "math.comb(i, n)",
            "math.comb(i, n - 1)",
            "a rank off by one",
            "test_rejection::test_expected_best_of_equals_all_subsets",
        ),
        (
            "nanorlhf.layouts._join",
            '*({**m, "weight": 0} for m in before)',
            "*before",
            "earlier answers in the prompt are imitated",
            "test_layouts::test_what_stands_in_the_prompt_is_read_and_never_imitated",
        ),
        (
            "nanorlhf.layouts._answered",
            'again.sub("", said[0]["content"], count=1)',
            'said[0]["content"]',
            "a prompt that both answers repeat stands in the ids twice",
            "test_layouts::test_a_prompt_that_two_strings_repeat",
        ),
        (
            "nanorlhf.layouts._without_nulls",
            '.replace("\\r\\n", "\\n")',
            "",
            "Windows' line ends are two",
            "test_layouts::test_the_same_chat_in_every_layout",
        ),
        (
            "nanorlhf.layouts._check",
            'm["weight"] = 0',
            "pass",
            "an empty answer inside a chat trains to end at once",
            "test_layouts::test_an_empty_answer_teaches_nothing",
        ),
        (
            "nanorlhf.layouts.conversation",
            'next(m["content"] for m in messages if m["role"] == "user")',
            '[m["content"] for m in messages]',
            "a held-out answer is trained on inside a longer dialogue",
            "test_layouts::test_a_conversation_of_which_one_row_is_held_out",
        ),
        (
            "nanorlhf.files.split",
            "x < share",
            "x <= 1 - share",
            "the share that is held out is trained on",
            "test_layouts::test_shares",
        ),
        (
            "nanorlhf.files._fitted",
            "system + messages[start:]",
            "messages[start:]",
            "what says how to answer is cut off with the oldest turns",
            "test_data::test_the_system_message_stays",
        ),
        (
            "nanorlhf.preference_losses.thumb_weights",
            "lambda_U * down",
            "lambda_D * down",
            "both kinds weigh what the desirable ones do",
            "test_dpo::test_kto_of_thumbs_by_hand",
        ),
        (
            "nanorlhf.preference_losses.thumb_weights",
            "(rejected_tokens > 0).float()",
            "(rejected_tokens > -1).float()",
            "an answer that is not there is disliked",
            "test_dpo::test_kto_of_thumbs_by_hand",
        ),
        (
            "nanorlhf.gpt.in_full",
            "with torch.autocast(hidden.device.type, enabled=False):",
            "if True:",
            "the head follows autocast: log-probs and scores in the steps of bf16",
            "test_gpu::test_scores_are_near_those_of_float32",
        ),
        (
            "nanorlhf.steering.steered",
            "strength * direction.std * direction.vector",
            "strength * direction.vector",
            "a strength that means another thing in every layer",
            "test_steering::test_what_is_added_is_the_direction",
        ),
        (
            "nanorlhf.steering.projection",
            " - direction.mean",
            "",
            "what is usual does not stand at 0",
            "test_steering::test_a_planted_direction_is_found",
        ),
        (
            "nanorlhf.steering.find",
            "len(prompt) - 1 for",
            "len(prompt) for",
            "reads the answer's first token, not the place before it",
            "test_steering::test_the_place_before_the_answer",
        ),
        (
            "nanorlhf.judge.p_first",
            "len(row) - 1",
            "len(row) - 2",
            "asked before the value has been read",
            "test_judge::test_p_first_is_that_of_the_next_token",
        ),
        (
            "nanorlhf.judge.verdicts",
            "2 * asked[p.name][claim(lines)] - 1",
            "asked[p.name][claim(lines)]",
            "an error costs nothing: at worst it earns 0",
            "test_judge::test_verdicts_by_hand",
        ),
        (
            "nanorlhf.judge.worth",
            "weights[name] * verdict",
            "verdict",
            "all principles weigh alike, whatever is written",
            "test_judge::test_verdicts_by_hand",
        ),
        (
            "nanorlhf.reports.judge_report",
            "(np.sign(margin) + 1) / 2",
            "margin > 0",
            "a tie is a miss: a judge that never decides looks worse than one that guesses",
            "test_judge::test_a_judges_report_by_hand",
        ),
    )
]


def apply(mutant, monkeypatch):
    """Put the wrong version wherever the project, its tests included, holds the right one."""
    # first: imported under the patch it would keep the wrong version
    importlib.import_module(mutant.caught_by.split("::")[0])
    module_name, name = mutant.function.rsplit(".", 1)
    module = importlib.import_module(module_name)
    original = getattr(module, name)
    source = textwrap.dedent(inspect.getsource(original))
    assert mutant.right in source, (
        f"{mutant.function} has no {mutant.right!r} any more: put its mutant right"
    )
    made = {}
    exec(source.replace(mutant.right, mutant.wrong), vars(module), made)
    for other in list(sys.modules.values()):
        if str(getattr(other, "__file__", None) or "").startswith(str(ROOT)):
            for attribute, value in list(vars(other).items()):
                if value is original:
                    monkeypatch.setattr(other, attribute, made[name])


def cases(test):
    """Every combination of a test's parameters, as keyword arguments."""
    axes = []
    for mark in getattr(test, "pytestmark", []):
        names, rows = mark.args
        names = [n.strip() for n in names.split(",")]
        axes.append([dict(zip(names, row if len(names) > 1 else [row])) for row in rows])
    for choice in itertools.product(*axes):
        yield {name: value for part in choice for name, value in part.items()}


def fails(name):
    """Run module::test, case after case -> True at the first that fails. An error that is not a
    failed assertion is not a catch."""
    module, function = name.split("::")
    test = getattr(importlib.import_module(module), function)
    for arguments in cases(test):
        with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
            fixtures = {"monkeypatch": monkeypatch, "tmp_path": Path(folder)}
            wanted = inspect.signature(test).parameters
            try:
                test(**arguments, **{k: v for k, v in fixtures.items() if k in wanted})
            except (AssertionError, pytest.fail.Exception):
                return True
    return False


def table():
    def code(text):
        return f"`` {text} ``" if text else "nothing"

    rows = [
        f"| `{m.function}` | {code(m.right)} → {code(m.wrong)} | {m.breaks} | `{m.caught_by}` |"
        for m in MUTANTS
    ]
    return "\n".join(
        ["| function | mutant | what it breaks | caught by |", "|---|---|---|---|", *rows]
    )


if __name__ == "__main__":
    print(table())
