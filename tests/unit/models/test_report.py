from geodl.models.report import report_html

EMD = {
    "ModelName": "UnetClassifier",
    "ModelParameters": {"backbone": "resnet18"},
    "LearningRate": "1.0000e-03",
    "accuracy": "9.5000e-01",
    "mIoU": 0.5,
    "average_precision_score": {"tree": 0.25},
    "per_class_metrics": '{"<b>tree": {"precision": 0.5, "recall": 0.25, "f1": 0.3333}}',
}


def test_the_page_shows_metrics_and_pictures():
    page = report_html("trees", EMD, {"Loss": b"png"})
    for text in ("trees", "resnet18", "1.0000e-03", "9.5000e-01", "0.5000", "tree: 0.2500"):
        assert text in page
    assert 'src="data:image/png;base64,cG5n"' in page


def test_names_cannot_bring_markup():
    page = report_html("<script>", EMD, {})
    assert "<script>" not in page
    assert "<b>tree" not in page
    assert "&lt;b&gt;tree" in page
