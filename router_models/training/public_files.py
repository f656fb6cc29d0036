"""The public files that training and evaluation tables are made of: repository, commit, licence, and every file's git id.

A file's id is the SHA-1 of its length and content as git computes it, so a download that differs in one byte is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repository:
    """`files` maps a path to its git id at `commit`."""

    name: str
    commit: str
    licence: str
    files: Mapping[str, str]


def _listed(folder: str, ending: str, lines: str) -> dict[str, str]:
    """Paths and ids from lines of "id name"."""
    pairs = (line.strip().split(" ", 1) for line in lines.strip().splitlines())
    return {f"{folder}{name}{ending}": identity for identity, name in pairs}


REPOSITORIES: dict[str, Repository] = {
    "mmlu_pro": Repository(
        "TIGER-AI-Lab/MMLU-Pro",
        "f418b116db00b065c2aea046518d8fcf74d39872",
        "Apache-2.0",
        _listed(
            "eval_results/model_outputs_",
            "_5shots.zip",
            """
            86f24a444054005c37253bd999aa3b44fa0821b2 DeepSeek-Coder-V2
            b7b922dd5b97f58d702b616f118e2da37de94439 Llama-2-13b-hf
            6e62a2d22d929207936b6b74e7405724de3bc46c Llama-2-70b-hf
            ec367f14d9ad779d91aa356702cecf4bd584c4f5 Llama-2-7b-hf
            c99be5562f114d9c832c26cc0bae50abbed484d8 Meta-Llama-3-70B
            04186fdbf4cc1a2c0b00f4e4163be2bc90060f00 Meta-Llama-3-8B
            62cb8df94f0c83705cb222dd8fe857f6f3402b42 Meta-Llama-3_1-70B-Instruct
            bec031123a3c28ebbfbfbef35740886e56f2082c Meta-Llama-3_1-70B
            487d6cf8bb205ab955258d9419d55550e6ce888e Meta-Llama-3_1-8B-Instruct
            83c8a6fba11568e6f683d452c437dce757ecccc9 Meta-Llama-3_1-8B
            7f1482bb962f9b7d10927dcc74f4a323431641a6 Mistral-7B-Instruct-v0.1
            0ad9fff30996b32c3bc794d8dec77b4f6c6ca908 Mistral-7B-Instruct-v0.2
            1f759ba708e673bef98415f35db3b8e3e5e74ed5 Mistral-7B-v0.1
            7d2e8addf2254c389f17a03a9830f7dc44105871 Mistral-7B-v0.2-hf
            555ed4c26b7be28151b18587beda36679021a9f8 Mixtral-8x7B-Instruct-v0.1
            684aa68a3a037d0ec215a3edbaa9c489a5ed0349 Mixtral-8x7B-v0.1
            fdc380aea9588b9b62c59bed18c43fdba0767f8a Phi-3-mini-4k-instruct
            03af6df8c77c3d238ae6d835baece4b2f7adac56 Qwen1.5-110B
            8f81fdff09f3713f6e50c7f604179159de128fd0 Qwen1.5-72B-Chat
            6f74827c39b4ecfcb3daf4bce73be8f5436b251a Qwen1.5-7B-Chat
            a76c23a341bde06a3f2d7174b12d801c343d6cb5 Yi-34B
            ca967ea1da1848c5b81cc05e1c0860f7414c41dd Yi-6B
            46e4ec98ac127f7aa268866924ff3dd2fccf47f8 Yi-6b-Chat
            c81d5e2edf6235433476f1659f30ca17cd9b3f4c c4ai-command-r-v01
            9b348315aab1cface37b4339b72a2ed83a7c5b30 gemini-1.5-flash-002
            43d20af2a99677d6501457259c7ea54b2f83cbd9 gemini-1.5-pro-002
            ad8967e52db76ab81774071b16dc270c313f9684 gemma-7b
            dae7c2ca2222c567225ad7ea4273e955680ef362 jamba-1.5-large
            b62b1c2ca91470d005fcd8b356b2a416034dacbf mathstral-7B
            """,
        ),
    ),
    "math_level5": Repository(
        "WildEval/ZeroEval",
        "8c1485edf12c6efb5f69135a562927c5ad484059",
        "Apache-2.0",
        _listed(
            "result_dirs/math-l5/",
            ".json",
            """
            7a38526fdae731662713d084b1408cf01c00c841 Athene-70B
            3196e92a55964b4a7d554a166e33e945684a0de4 Llama-3.1-405B-Inst@sambanova
            1ef9ba4ad0437af0bb4cd161e56f83e8458515b2 Meta-Llama-3-70B-Instruct
            d25cef377a45da439c55eb262dff558bbf9ed799 Meta-Llama-3-8B-Instruct
            899990f594816e98815b8e078abf0c561655facb Meta-Llama-3.1-405B-Instruct@hyperbolic
            a1a5330724e97b232fdc9e115f49afa4f9c7f450 Meta-Llama-3.1-70B-Instruct
            b377bb1a723c4904c59da43d2818784564af8970 Meta-Llama-3.1-70B-Instruct@hyperbolic
            d3b0ff3d69e729e29dfd5cfbfdb884bda22af4fb Meta-Llama-3.1-8B-Instruct
            1e68b4e252edbb5621e2617b80b8619386161f87 Mistral-Large-2
            b12d99964fc9adb521853ab95765bdc13bccc619 Phi-3-mini-4k-instruct
            a3c9bae9a5233b8932e981c1a5d29c15cba094e3 Phi-3.5-mini-instruct
            9c53d1b7921cde44ba87fea78652e51ecb10d36d Qwen2-72B-Instruct
            3060a50966bd24a4a742183bd552e162afd89e35 Qwen2-7B-Instruct
            a6f0209bca2bdb28c8333146c7a66d3fffad87ca Qwen2.5-32B-Instruct
            6d1b6bd8ca4fdc22ae6abb78ae703cc62b57c294 Qwen2.5-3B-Instruct
            ebf473d431eb01a118e7927d4c32afed6edc544c Qwen2.5-72B-Instruct
            3f28259d2646cc0a9433e923a82eca40ff9e3b55 Qwen2.5-7B-Instruct
            5f73aa852b8ab2c5961e33a67962a730fa116eb2 Yi-1.5-34B-Chat
            71290498eec42c682127137532f60ae0e17919cd Yi-1.5-9B-Chat
            41c1073ad037da17ac3412ee6497d6ed77f9e148 chatgpt-4o-latest-24-09-07
            e366c6859874030127b8aa1b1d33528ba586a5d0 claude-3-5-haiku-20241022
            9fcb5f937eebf9474d54e68e3dadacb028205576 claude-3-5-sonnet-20240620
            9e624f2e519a0e6630d74cf9250422c0e31457fe claude-3-5-sonnet-20241022
            977e6b404b0f4bf4005044a4806f06827b6f8c5e claude-3-haiku-20240307
            e555eb7f986fc285f939a69e50410763b633ed74 claude-3-opus-20240229
            9aaea028bd87e644fdb615a3a5e7db9bc5eb00ac deepseek-v2.5-0908
            b31cdd3507605280209a7b0f59c22f0bcc439201 gemini-1.5-flash-exp-0827
            f2d354cea92ba63bad0b3d2cf3adbd688c7b6547 gemini-1.5-flash
            6fe6c9e684724c74b5fea838d87610e44c782312 gemini-1.5-pro-exp-0827
            5af83ff97a9b648541d3b6ee6404c154598f98a5 gemini-1.5-pro
            71d4b16239c30d4631deaf38afd4f426df8c727f gemma-2-27b-it
            166e64cb45b9ec2448811bea83163e93fb1ba03d gemma-2-2b-it
            573b0075ab9a32748b3743d3de7676032ae4d5b2 gemma-2-9b-it
            07dbdb32e2ff33d3ff866cecc100c791999fb6f9 gpt-3.5-turbo-0125
            c08b98b76e3109986da28730d68db4d4c6890ef5 gpt-4-0314
            ea562f1c9fb3ca3fbc5128aba7569acfba32cc4c gpt-4-turbo-2024-04-09
            57373ac6c2bd34631814c436f3bf2b1b3514b240 gpt-4o-2024-05-13
            e9535fbf0f4e4565c9d1f10434dc0699a7eaa171 gpt-4o-2024-08-06
            d43c8a2cbc9f5c8caa3a35813ff6cb1ab2038007 gpt-4o-mini-2024-07-18
            1a9b8afe4b08c6cf1a511a44eb9af00b9c083471 grok-2-1212
            6524169d2771ce9482e574a1977eccff0e770e72 o1-mini-2024-09-12
            049b6b4d32c1f81ae9faec9fe661f919b1c13ef1 o1-preview-2024-09-12
            868dd2e1d0cb534547a2731a244f8b5344a9faf4 reka-core-20240501
            """,
        ),
    ),
    "drift": Repository(
        "lchen001/LLMDrift",
        "4938eb720aed5210dd2153644fa35cf38b9c6d26",
        "Apache-2.0",
        _listed(
            "generation/",
            ".csv",
            """
            e422e26f5722678a0bdcfda40c5afc7746b750a1 COUNTAHAPPYNUMBER_EVAL
            3ea85265446571b210717a5f0cd6b248256ee632 LEETCODE_EASY_EVAL
            2f2f5b194ddb4eff5c54fe2125f9088f88118c9f OPINIONQA_EVAL
            78cc75f99a44b75f6bed8e19fe382d4c69114667 PRIME_FULL_EVAL
            15d601da9aed39dcdd4c7fb6d873c6c49ac2c508 SENSITIVEQ_EVAL
            """,
        ),
    ),
    "llmrouter14": Repository(
        "ulab-uiuc/LLMRouter",
        "4e7a796942ce26e9d5f2b93191c7c2585c99c2e3",
        "MIT",
        _listed(
            "data/default_data/",
            ".jsonl",
            """
            a5824635328c476d22c1907d14d1f15f70bdc28c default_routing_test_data
            af4e199bba785a607aacf3a44fd2ae3e61f823e9 default_routing_train_data
            """,
        ),
    ),
    "routellm": Repository(
        "lm-sys/RouteLLM",
        "0b64fdafe049e596a3f5657c219329f24af24198",
        "Apache-2.0",
        _listed(
            "routellm/evals/",
            "",
            """
            84c9fb8e09e28945f1b489458283571c3a62e450 gsm8k/contaminated_prompts.jsonl
            1f777d8bfd7a9157ca19cc1f0687136491fcf1a1 gsm8k/gsm8k_responses.csv
            c163ce36643bba4ed0b70697ae454141b86c30b7 mmlu/contaminated_prompts.jsonl
            ee13ea5519d21d59fba35dcc88dd1283c06ddd9f mmlu/responses/mmlu_abstract_algebra.csv
            b7d8bec5a70ca7ae1ccbd4c89f8436e218834103 mmlu/responses/mmlu_anatomy.csv
            ff8c4b0082e48a597d00a3b92ab2772ebae4deb6 mmlu/responses/mmlu_astronomy.csv
            129c7c0dd3c74916ecb46dcc16f6ca57065b84f4 mmlu/responses/mmlu_business_ethics.csv
            d224ef6f1ff5eb92984f37845b8fa78f0f87d47d mmlu/responses/mmlu_clinical_knowledge.csv
            10c674572a68dc7b1ae6b1748838a3a6aab74aae mmlu/responses/mmlu_college_biology.csv
            9e8eb9b6ae47bc19a0a1d21536d809f12ddf1527 mmlu/responses/mmlu_college_chemistry.csv
            7e254663b37756042ff56ced46a611d04a6bda26 mmlu/responses/mmlu_college_computer_science.csv
            d31a4127ac70e31433b0f82024099be5759e1bbe mmlu/responses/mmlu_college_mathematics.csv
            5d1fa57df2d9de2706a3c350b88701a92567c651 mmlu/responses/mmlu_college_medicine.csv
            6e5fb5ca9e2bd0c9674c540990efe64ef1d05159 mmlu/responses/mmlu_college_physics.csv
            847aed9350cc80e27d7e14d35375a47aa1f9a5a2 mmlu/responses/mmlu_computer_security.csv
            d59c0cb0da3b60151475b5d6c97ff401ccf1de79 mmlu/responses/mmlu_conceptual_physics.csv
            945b211d1e4ea9d5875732298b9d11dce56800b5 mmlu/responses/mmlu_econometrics.csv
            fc5f814bddd32b606c94824c57ffed2cf10700f5 mmlu/responses/mmlu_electrical_engineering.csv
            0019267427892270f203e8579ed253662af53d89 mmlu/responses/mmlu_elementary_mathematics.csv
            2bbae0a0b7d2ee3c6d6a49dcaaeabd25cbd217f9 mmlu/responses/mmlu_formal_logic.csv
            24702f0d1daca25f6dbfd02be9f258313b212787 mmlu/responses/mmlu_global_facts.csv
            668b2f0d962459876e2851ae413b1fa7dad79a5f mmlu/responses/mmlu_high_school_biology.csv
            94d6cb48680a7ad28d67691a7470214606fae151 mmlu/responses/mmlu_high_school_chemistry.csv
            c7163e7ec4b1f053dcf7e18022c77f2c45943e70 mmlu/responses/mmlu_high_school_computer_science.csv
            c52ae38af75edd5d42587150e77ea9692b411277 mmlu/responses/mmlu_high_school_european_history.csv
            f439fb77ed421ab3f910ea728d3aef4d2e5a324d mmlu/responses/mmlu_high_school_geography.csv
            f623c1c05b2b7d9206a1b82e3431b3ac4f24733f mmlu/responses/mmlu_high_school_government_and_politics.csv
            1a1e599af123c92afd8957700572c9b8ce7f3b06 mmlu/responses/mmlu_high_school_macroeconomics.csv
            fb7f156ada688468f60ac6ea78f244f336190923 mmlu/responses/mmlu_high_school_mathematics.csv
            388ebe077553e7de12d782cd5586098bbae12433 mmlu/responses/mmlu_high_school_microeconomics.csv
            812aad13d0784d184cd5ae35cc668abf7afbb6cf mmlu/responses/mmlu_high_school_physics.csv
            e2a30ef86071be65a52c0dfc820696aae800e8cb mmlu/responses/mmlu_high_school_psychology.csv
            a60d7fb1bd940f171f9a21651967530497f6482a mmlu/responses/mmlu_high_school_statistics.csv
            a878bc4a5ae6fa3ee591215f162fc35cc0cac794 mmlu/responses/mmlu_high_school_us_history.csv
            19ee2c22a795a5235608b12a204ef33586906849 mmlu/responses/mmlu_high_school_world_history.csv
            7a7cc2e1555952005345722e4fb8af1f5b8992bd mmlu/responses/mmlu_human_aging.csv
            690a4c3c74a770eeb446c395395252032e13a870 mmlu/responses/mmlu_human_sexuality.csv
            7b7043f34178236c37d463b4a41630c8bdc2c692 mmlu/responses/mmlu_international_law.csv
            d486894ebcab55ea5dbb4168249ea1466e92ea58 mmlu/responses/mmlu_jurisprudence.csv
            f3291b4b02a223712debe38e1ca2bdbce2ab2d59 mmlu/responses/mmlu_logical_fallacies.csv
            70cd9eaa80f228ebf24d49bce5486f9d725d25b1 mmlu/responses/mmlu_machine_learning.csv
            c8e1841e2c21d72ac491084694e5f7f37118a60e mmlu/responses/mmlu_management.csv
            50d012fdcefb83cd7fa85cdcffd4bba8a7c39234 mmlu/responses/mmlu_marketing.csv
            412081fdc7e7890d9ff6c80fe249278bdf894f4a mmlu/responses/mmlu_medical_genetics.csv
            a9afe0d2dce4dad8f8da919c06754e638fb2cd25 mmlu/responses/mmlu_miscellaneous.csv
            24a22f46b6dc097990d2f4751f4f4428a7a886aa mmlu/responses/mmlu_moral_disputes.csv
            c2c08f6340b413e5a8de7e9cff9c0cb7b7e0c0b9 mmlu/responses/mmlu_moral_scenarios.csv
            37a5d23f4fe3214fb9b2253daf4ea509cc186a56 mmlu/responses/mmlu_nutrition.csv
            0b32df4f67d01445e04376fa16bebc56cfe6aaed mmlu/responses/mmlu_philosophy.csv
            4e5335f593dd5980a646348a464bb4ff6b31e308 mmlu/responses/mmlu_prehistory.csv
            6217f20d1396bb6ee0c0e3a79411d8514f07cd9b mmlu/responses/mmlu_professional_accounting.csv
            e9adade4e9ebee1ade640c3c0ea8d8d019a7d629 mmlu/responses/mmlu_professional_law.csv
            7ff8facede752379b65fea09869b304804456f9c mmlu/responses/mmlu_professional_medicine.csv
            9dc889e790277183dba875c7cead320300ef1874 mmlu/responses/mmlu_professional_psychology.csv
            2c00cde7678ec35b85ef3d10ab5d62582263434c mmlu/responses/mmlu_public_relations.csv
            eb5b235d52b0bcda2a131743b5dcd642c03d8387 mmlu/responses/mmlu_security_studies.csv
            9a2f8437414c9dc4d68f9143649785c8c18eb8d9 mmlu/responses/mmlu_sociology.csv
            920c00084b8d551f488d59cf07e2f25be36e2e53 mmlu/responses/mmlu_us_foreign_policy.csv
            d71b1343ea02820a8a09f9cb115c6ee67d0bbe7b mmlu/responses/mmlu_virology.csv
            9c8aade314a2d10233319ba3f1ec832710f3fedf mmlu/responses/mmlu_world_religions.csv
            9ae2785b7e8935e71b457212466e195e19ddbce6 mt_bench/contaminated_prompts.jsonl
            697ec9abf5394ccec58607c35b360cbb5a317cf0 mt_bench/judgements.jsonl
            464e2c22f7a021a0f9a584d232338a9a17c40066 mt_bench/question.jsonl
            """,
        ),
    ),
}
