// Package export writes the results of a run as other load generators write
// theirs, so that what reads those reads these.
//
//	err := export.Write("results/managed/lbd-bench_mix_20260801-120000", res)
//
// Invariants: no figure is made up, what a format wants and a run does not have is
// left out or null; nothing is written that the run did not measure completely.
//
// The files:
//
//   - profile_export.json: genai-perf's raw export, nanoseconds. Only with
//     [load.Options.KeepBytes], and only when every measured request was kept. The
//     responses have the text of each event in a new envelope, the same for all of
//     them, not the bytes that came; events that came in one read are one response
//     with several events, as perf_analyzer writes them. timestamp is the scheduled
//     time, so queueing in front of a server that is too slow counts. Requests that
//     failed are left out: genai-perf's reader has no word for them.
//   - profile_export_genai_perf.json and .csv: genai-perf's summaries by its
//     definitions, milliseconds: latency ends with the last content, inter-token
//     latency is one mean for each request. Tokens are those the replica counted,
//     where genai-perf asks a tokenizer.
//   - profile_export.csv: the same as profile_export_genai_perf.csv.
//   - guidellm.json, guidellm_0.3.json: reports in the schemas of guidellm 0.7 and of
//     0.2 to 0.3.1. Figures of guidellm's own scheduler are those of the run's clocks
//     that mean the same; it has no queue, so times in one are 0.
package export
