"""What the paper prints, digit by digit. These are the only constants of the audit; everything else is computed."""

# Table 2: momentum schedules as formulas, and the free parameters counted for them.
SCHEDULES = {
    "Baseline": ("μ = 0.9", 1),
    "1cycle": ("μ in [0.85, 0.95], inversely coupled to LR", 2),
    "Physics": ("μ = clamp(1 - 2√α, 0.5, 0.99)", 0),
}
# Section 4.1
EPOCHS, LR_MAX, LR_MIN = 200, 0.1, 1e-4
BASELINE_MOMENTUM, CYCLE, CLAMP, TOLERANCE = 0.9, (0.85, 0.95), (0.5, 0.99), 0.05
TEST_IMAGES = 10_000  # section 5.2

# Table 3: best test accuracy in per cent, training time in seconds.
BEST_ACCURACY = {"Baseline": "95.54", "1cycle": "95.29", "Physics": "95.02"}
TRAINING_SECONDS = {"Baseline": 5127, "1cycle": 5100, "Physics": 5128}
SEED_SPREAD = (0.2, 0.3)  # caption of Table 3: seed-to-seed variance, in points

# Table 4: epoch at which an accuracy (per cent) is reached.
THRESHOLDS = (80, 85, 90, 92, 95)
MILESTONES = {
    "Baseline": (13, 26, 100, 139, 172),
    "1cycle": (10, 14, 144, 161, 187),
    "Physics": (8, 14, 52, 101, 190),
}
# Table 5: accuracy in per cent at epochs 1, 10, 50.
EARLY_EPOCHS = (1, 10, 50)
EARLY = {"Baseline": (37.27, 77.43, 86.80), "1cycle": (24.70, 80.55, 83.15), "Physics": (47.88, 82.68, 89.16)}

# Table 6: epochs underdamped, critical, overdamped, with the percentages printed.
REGIMES = {
    "Baseline": ((170, 21, 9), ("85", "10.5", "4.5")),
    "1cycle": ((138, 48, 14), ("69", "24", "7")),
    "Physics": ((0, 200, 0), ("0", "100", "0")),
}

# Table 7: images by who gets them wrong.
ALL_WRONG, ONLY_BASELINE, ONLY_PHYSICS, ONLY_1CYCLE, WON_BY_PHYSICS = 215, 104, 138, 96, 172

# Table 8: gradient norm on errors, and what is flagged.
NORMS = {
    "layer3": 10.56, "conv1": 9.14, "layer2": 8.58, "layer1": 7.43, "layer4": 7.38, "bn1": 4.99, "fc": 0.86,
}  # fmt: skip
FLAGGED = ("layer3", "conv1", "layer2")
GROUPS = 7

# Table 9: true class, predicted class → attributed layer.
CONFUSIONS = {
    ("cat", "dog"): "layer3", ("dog", "cat"): "layer3", ("cat", "bird"): "layer2", ("deer", "dog"): "conv1",
    ("horse", "bird"): "conv1", ("ship", "airplane"): "layer2", ("frog", "dog"): "layer3",
}  # fmt: skip
# Table 17: fixed errors as (before, after, attributed layer).
FIXED_EXAMPLES = (
    ("airplane", "ship", "layer2"), ("bird", "horse", "conv1"), ("bird", "cat", "layer2"), ("cat", "dog", "layer3"),
    ("dog", "cat", "layer3"), ("dog", "frog", "layer3"), ("dog", "deer", "conv1"), ("dog", "cat", "layer3"),
    ("airplane", "cat", "layer2"), ("bird", "cat", "layer2"),
)  # fmt: skip

# Section 5.5 and Table 10: the first surgical correction.
ALL_TENSORS, TRAINED_TENSORS, REPAIR_EPOCHS = 120, 35, 30
ERRORS_BEFORE, ERRORS_AFTER, FIXED, BROKEN, NET = 452, 446, 55, 49, 6
ACCURACY_BEFORE, ACCURACY_AFTER = "95.48", "95.54"

# Table 11: best test accuracy in per cent, errors.
TRAINED = {
    "CD": ("95.62", 453),
    "Baseline": ("95.51", 453),
    "iKFAD": ("95.39", 468),
    "Physics": ("95.12", 496),
    "Adam": ("93.68", 647),
}
SGD_VARIANTS = ("CD", "Baseline", "iKFAD", "Physics")

# Table 12: problem layers.
PROBLEM_LAYERS = {
    "SGD": ("layer3", "conv1", "layer2"),
    "iKFAD": ("bn1", "layer3", "layer2"),
    "Adam": ("conv1", "layer2", "layer3"),
}

# Table 13: fixed, new errors, net, accuracy after in per cent; the accuracy before A to D.
CORRECTIONS = {
    "A": (62, 55, 7, "95.54"),
    "B": (62, 40, 22, "95.69"),
    "C": (42, 59, -17, "95.30"),
    "D": (46, 56, -10, "95.37"),
    "E": (146, 148, -2, "93.51"),
}
LAYER_LEVEL, PARAMETER_LEVEL = ("A", "B"), ("C", "D")
CORRECTED_BEFORE = "95.47"

# Table 14: epoch at which an accuracy is reached, best accuracy in per cent.
HYBRID_MILESTONES = {
    "Baseline": (13, 31, 96, 139, 175),
    "Physics": (8, 13, 45, 88, 183),
    "1cycle": (17, 43, 85, 137, 179),
    "Hybrid-90": (7, 12, 46, 136, 170),
    "Hybrid-ep52": (8, 12, 109, 136, 173),
}
HYBRID_BEST = {
    "Baseline": "95.33", "Physics": "95.11", "1cycle": "95.36", "Hybrid-90": "95.30", "Hybrid-ep52": "95.36",
}  # fmt: skip
SWITCH_EPOCH, SWITCHED_AT = 52, 47  # of Hybrid-ep52 (section 7.1) and Hybrid-90 (Table 14)

# Table 15: epoch → α, μ_c, regime, Δμ, at μ = 0.9.
SCAN = {
    1: ("0.10000", "0.368", "underdamped", "+0.532"),
    20: ("0.09779", "0.375", "underdamped", "+0.525"),
    50: ("0.08536", "0.416", "underdamped", "+0.484"),
    100: ("0.05083", "0.549", "underdamped", "+0.351"),
    150: ("0.01455", "0.759", "underdamped", "+0.141"),
    170: ("0.00559", "0.850", "critical", "+0.050"),
    180: ("0.00279", "0.894", "critical", "+0.006"),
    200: ("0.00011", "0.979", "overdamped", "-0.079"),
}

# Table 16: epoch → α, μ, accuracy in per cent, change in points; α starts at 0.01 (section 5.5).
REPAIR_LR_MAX = 0.01
REPAIR_LOG = {
    1: ("0.01000", "0.8000", "95.52", "+0.04"),
    10: ("0.00796", "0.8216", "95.32", "-0.16"),
    20: ("0.00304", "0.8898", "95.48", "0.00"),
    30: ("0.00013", "0.9775", "95.54", "+0.06"),
}

# References whose authors are not those of the work that the entry names (first author as printed, and how many).
REFERENCES = {
    "[1]": ("Cutkosky, Defazio, Mehta", "The marginal value of momentum for small learning rate SGD, ICLR 2024"),
    "[20]": ("Zhiqi Yang et al.", "arXiv:2602.00334"),
}
