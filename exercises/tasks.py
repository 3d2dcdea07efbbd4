"""The exercises: functions of this project whose bodies are taken out, and lines that are made
wrong. Nothing is written twice: the task is the function's own docstring."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    name: str
    file: str
    function: str       # Class.method where it is one
    chapter: str        # of the book, current edition
    minutes: int        # roughly
    task: str
    hint: str
    tests: tuple        # file::test


@dataclass(frozen=True)
class Fault:
    number: str
    file: str
    function: str
    right: str
    wrong: str
    command: str        # a minute of training that shows it
    symptom: str        # what is seen in the curves
    test: str           # file::test that names it


EXERCISES = [Exercise(*row) for row in (
    ("token_logprobs", "nanorlhf/functional.py", "token_logprobs", "4", 15,
     "From logits to the log-prob of each token that is there.",
     "Column t of the logits speaks about token t+1: which columns of ids do you gather?",
     ("test_functional.py::test_token_logprobs_and_entropy_against_a_loop",)),
    ("sft_loss", "train_sft.py", "sft_loss", "4", 10,
     "Cross-entropy on the tokens that count, and on no other.",
     "token_logprobs gives a log-prob a token; a mean over the mask is masked_mean.",
     ("test_sft.py::test_sft_loss_by_hand",
      "test_sft.py::test_sft_loss_does_not_see_right_padding")),
    ("chat", "nanorlhf/tokenizer.py", "Tokenizer.chat", "4", 20,
     "A conversation becomes ids, and a mask of what is imitated.",
     "Encode each part apart. A user's turn is never in the mask; an answer's end token is.",
     ("test_tokenizer.py::test_chat_masks_the_answers_and_their_end_tokens",)),
    ("preference_loss", "train_rm.py", "preference_loss", "5", 10,
     "Bradley-Terry: the difference of two scores is a log-odds.",
     "logsigmoid is stable where log of sigmoid is not.",
     ("test_rm.py::test_preference_loss_by_hand",
      "test_rm.py::test_preference_loss_margin_makes_it_harder")),
    ("plackett_luce", "train_rm.py", "plackett_luce_loss", "5", 20,
     "The probability of a whole ranking.",
     "Pick the best of all, then the best of the rest: each pick is a softmax over what is left.",
     ("test_rm.py::test_plackett_luce_of_two_is_bradley_terry",
      "test_rm.py::test_plackett_luce_is_a_distribution_over_rankings")),
    ("prefers_first", "nanorlhf/worlds/labelers.py", "prefers_first", "10", 15,
     "With which probability does a labeler prefer the first of two answers?",
     "A sigmoid of the difference in utility; noise is a coin that is tossed in its place.",
     ("test_labelers.py::test_pairs",)),
    ("expected_best_of", "train_rejection.py", "expected_best_of", "9", 30,
     "Exactly how good is the best of n out of K answers, over all choices of n?",
     "Sort by score. In how many of the n-subsets is the i-th the best? Count with math.comb.",
     ("test_rejection.py::test_expected_best_of_equals_all_subsets",
      "test_rejection.py::test_expected_best_of_limits")),
    ("kl_estimate", "nanorlhf/functional.py", "kl_estimate", "15", 15,
     "Three ways to estimate a KL from samples.",
     "d = log(policy / ref) of the sampled token. Which of the three may be negative?",
     ("test_functional.py::test_kl_estimators_against_the_exact_kl",)),
    ("token_rewards", "train_ppo.py", "token_rewards", "6", 20,
     "One score an answer becomes one reward a token.",
     "The price of the KL stands on every token; the score is added on the last one of the mask.",
     ("test_ppo.py::test_token_rewards_by_hand",
      "test_ppo.py::test_token_rewards_sum_to_score_minus_kl")),
    ("gae", "train_ppo.py", "gae", "6", 30,
     "How much of what comes later is a token responsible for?",
     "Go from the end to the beginning and keep two things: the next value, the last advantage.",
     ("test_ppo.py::test_gae_by_hand", "test_ppo.py::test_gae_equals_its_definition",
      "test_ppo.py::test_gae_limits",
      "test_ppo.py::test_gae_steps_over_a_hole_and_an_empty_row")),
    ("whiten", "nanorlhf/functional.py", "whiten", "6", 10,
     "Advantages to mean 0 and variance 1, over the tokens that count.",
     "Mean and variance are masked_mean's; what is outside the mask is 0 afterwards.",
     ("test_functional.py::test_whiten_sees_masked_tokens_only",)),
    ("policy_loss", "train_ppo.py", "policy_loss", "6", 25,
     "PPO's clipped objective.",
     "The ratio is exp of a difference of log-probs. Which of two terms is the worse one?",
     ("test_ppo.py::test_policy_loss_on_policy_is_plain_policy_gradient",
      "test_ppo.py::test_policy_loss_is_clipped_on_both_sides",
      "test_ppo.py::test_policy_loss_inside_the_clip_is_the_ratio",
      "test_ppo.py::test_policy_loss_ignores_what_is_outside_the_mask")),
    ("value_loss", "train_ppo.py", "value_loss", "6", 15,
     "The critic's loss, clipped around what it said before.",
     "The larger of two squared errors, and half of it.",
     ("test_ppo.py::test_value_loss_by_hand",)),
    ("group_advantages", "train_grpo.py", "group_advantages", "6", 30,
     "Four baselines without a critic.",
     "RLOO leaves the answer itself out of the mean. A group without spread gives exact zeros.",
     ("test_grpo.py::test_advantages_by_hand",
      "test_grpo.py::test_rloo_is_the_score_less_the_mean_of_the_others",
      "test_grpo.py::test_a_group_without_spread_gives_exact_zeros",
      "test_grpo.py::test_the_kl_comes_off_before_the_baseline_and_stays_out_of_the_std")),
    ("aggregate", "nanorlhf/functional.py", "aggregate", "6", 15,
     "Three ways to average a loss over tokens, and what a long answer weighs in each.",
     "token: over all tokens; sequence: means of means; fixed: a sum over B times max_len.",
     ("test_functional.py::test_three_aggregations",)),
    ("dpo_loss", "nanorlhf/preference_losses.py", "dpo_loss", "8", 20,
     "Preferences without a reward model.",
     "log_ratios gives h and both rewards; the loss is a logsigmoid of beta h.",
     ("test_dpo.py::test_loss_is_ln_2_where_policy_is_reference",
      "test_dpo.py::test_dpo_loss_by_hand", "test_dpo.py::test_label_smoothing_by_hand")),
    ("ipo_loss", "nanorlhf/preference_losses.py", "ipo_loss", "8", 10,
     "A margin that is to be met, not exceeded.",
     "Its minimum is at h = 1 / (2 beta).",
     ("test_dpo.py::test_ipo_is_least_at_half_an_inverse_beta",)),
    ("kto_loss", "nanorlhf/preference_losses.py", "kto_loss", "8", 20,
     "Thumbs up and thumbs down, each by itself.",
     "No gradient goes through the reference or z0. Which sign has an undesirable answer?",
     ("test_dpo.py::test_kto_by_hand_and_its_gradients", "test_dpo.py::test_kto_saturates")),
    ("token_divergence", "nanorlhf/distillation.py", "token_divergence", "12", 20,
     "How far is a student's next token from its teacher's? Two KLs, and what lies between.",
     "Log-probs of both first. The mixture's log-prob is a logaddexp; js is two KLs to it.",
     ("test_distill.py::test_divergences_by_hand", "test_distill.py::test_limits_of_js",
      "test_distill.py::test_symmetry_and_bound_of_js")),
    ("reinforce_loss", "nanorlhf/distillation.py", "reinforce_loss", "12", 15,
     "The gradient of reverse KL from the sampled token alone.",
     "Which of the two factors must no gradient go through?",
     ("test_distill.py::test_reinforce_is_the_same_on_average",)),
    ("pass_at_k", "nanorlhf/stats.py", "pass_at_k", "7", 15,
     "Is one of k answers right, when n were drawn?",
     "1 less the share of k-subsets that have none: two binomial coefficients.",
     ("test_stats.py::test_pass_at_k_is_the_share_of_all_draws_with_a_right_one",
      "test_stats.py::test_pass_at_k_is_unbiased")),
)]

PPO = "python train_ppo.py --run {run} --out fault --steps 40"
FAULTS = [Fault(*row) for row in (
    ("1", "nanorlhf/functional.py", "shift_right", "F.pad(x[:, :-1], (1, 0))", "x", PPO,
     "the explained variance is near 1 from the first steps on",
     "test_exact.py::test_critic_regresses_onto_backward_induction"),
    ("2", "nanorlhf/functional.py", "last_token", "(columns * mask).amax(1, keepdim=True)",
     "(columns * mask).amax(1, keepdim=True) - 1", PPO,
     "the score is far from what the reward model gave SFT's answers, and gold does not follow it",
     "test_functional.py::test_masks"),
    ("3", "train_ppo.py", "token_rewards", "-beta * kl_estimate", "beta * kl_estimate", PPO,
     "the KL grows without end", "test_ppo.py::test_token_rewards_by_hand"),
    ("4", "train_ppo.py", "gae", "delta + gamma * lam * advantage", "delta", PPO,
     "gold hardly moves: no token is responsible for what comes after it",
     "test_ppo.py::test_gae_by_hand"),
    ("5", "nanorlhf/policy_losses.py", "clipped_loss", "torch.maximum", "torch.minimum", PPO,
     "the clip no longer holds: clip_fraction and approx_kl rise",
     "test_ppo.py::test_policy_loss_is_clipped_on_both_sides"),
    ("6", "train_grpo.py", "policy_loss", "return aggregate(losses,",
     "return -aggregate(losses,", "python train_grpo.py --run {run} --out fault --steps 40",
     "the score falls from the first step on",
     "test_grpo.py::test_loss_and_gradient_by_definition"),
    ("7", "nanorlhf/preference_losses.py", "log_ratios", "return chosen - rejected,",
     "return rejected - chosen,", "python train_dpo.py --run {run} --out fault --steps 100",
     "the chosen answers' log-probs fall, and the loss is low all the same",
     "test_dpo.py::test_dpo_loss_by_hand"),
    ("8", "train_rm.py", "preference_loss", "chosen - rejected", "rejected - chosen",
     "python train_rm.py --run {run} --out fault --steps 200",
     "the loss falls and accuracy goes to a quarter", "test_rm.py::test_preference_loss_by_hand"),
)]


def of(name, number=""):
    """The Exercise of this name, or the Fault of this number. None where there is none."""
    if name == "fault":
        return next((f for f in FAULTS if f.number == number), None)
    return next((e for e in EXERCISES if e.name == name), None)


def sheet():
    """The table of exercises/README.md, chapter by chapter."""
    rows = ["| chapter | exercise | what it teaches | minutes |", "|---|---|---|---|"]
    for e in sorted(EXERCISES, key=lambda e: int(e.chapter)):
        rows.append(f"| {e.chapter} | `{e.name}` | {e.task} | {e.minutes} |")
    return "\n".join(rows)
