/* page.c -- the frame of an HTML page: everything inside, nothing fetched. */
#include "report/report_int.h"

#include <string.h>

static const char page_css[] =
    "*{box-sizing:border-box}html{color-scheme:light dark}"
    "body{margin:0;background:var(--page);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}"
    "main{max-width:1160px;margin:0 auto;padding:28px 20px 60px}"
    "h1{font-size:20px;margin:0 0 4px}h2{font-size:18px;margin:44px 0 8px}"
    "h3{font-size:15px;margin:28px 0 8px}p{margin:6px 0}"
    ".soft{color:var(--soft)}.small{font-size:13px}"
    "code,pre,.mono{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    "pre{background:var(--panel);border-radius:6px;padding:10px 12px;overflow-x:auto;"
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:6px 0}"
    ".banner{border-left:6px solid var(--soft);background:var(--panel);border-radius:6px;"
    "padding:14px 18px;margin:14px 0}"
    ".banner b{font-size:22px;margin-right:10px}.banner p{margin:4px 0 0}"
    ".banner.pass{border-color:var(--pass)}.banner.fail{border-color:var(--fail)}"
    ".banner.unsure{border-color:var(--unsure)}"
    ".pass b,.v.pass{color:var(--pass)}.fail b,.v.fail{color:var(--fail)}"
    ".unsure b,.v.unsure{color:var(--unsure)}.v{font-weight:600;white-space:nowrap}"
    ".v.none{color:var(--soft);font-weight:400}"
    ".wide{overflow-x:auto}.chart{overflow-x:auto;margin:10px 0}"
    "svg{max-width:100%;height:auto;display:block}.chart svg{min-width:680px}"
    "figure{margin:0}figcaption{font-weight:600;margin:8px 0}"
    ".pair{display:flex;flex-wrap:wrap;gap:20px}"
    "table{border-collapse:collapse;width:100%;font-size:14px;"
    "font-variant-numeric:tabular-nums}"
    "th{text-align:left;font-weight:600;color:var(--soft);font-size:13px}"
    "th,td{padding:6px 8px;border-bottom:1px solid var(--grid);vertical-align:top}"
    "th.n,td.n{text-align:right;white-space:nowrap}tr.side td{color:var(--soft)}"
    "tr.side .v{font-weight:400}td.key{white-space:nowrap}td.any{overflow-wrap:anywhere}"
    "tr:hover td{background:var(--panel)}"
    "details{border-bottom:1px solid var(--grid);padding:4px 0}"
    "summary{cursor:pointer;overflow-wrap:anywhere}summary .soft{margin-left:8px}"
    ".clip{max-height:7.5em;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;"
    "min-width:6em}.num{white-space:nowrap}details table{margin:4px 0 14px}"
    "ul{margin:6px 0;padding-left:20px}"
    "@media print{details>*{display:block}}";

void cm_page_open(cm_buf *b, const char *title) {
    cm_buf_addf(b, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                   "<title>");
    cm_xml_text(b, title);
    cm_buf_addf(b, "</title>\n<style>\n%s\n%s\n</style>\n</head>\n<body>\n<main>\n",
                cm_chart_css, page_css);
}

void cm_page_close(cm_buf *b) { cm_buf_addf(b, "</main>\n</body>\n</html>\n"); }
