package daemon_test

import "testing"

// logLevel and accessLog are those of every lbd of the tests. At info small requests are
// relayed in turns of a loop, with and without a line; at debug in goroutines.
var logLevel, accessLog = "info", "false"

// What a client sees is the same whether or not requests have goroutines of their own.
func TestInGoroutines(t *testing.T) {
	logLevel = "debug"
	t.Cleanup(func() { logLevel = "info" })
	likeAllOthers(t)
}

// And it is the same whether or not they have a line in the log.
func TestWithAccessLog(t *testing.T) {
	accessLog = "true"
	t.Cleanup(func() { accessLog = "false" })
	likeAllOthers(t)
}

func likeAllOthers(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"HostileAnswers":                   TestHostileAnswers,
		"ReplicaMisbehaves":                TestReplicaMisbehaves,
		"RetryRefused":                     TestRetryRefused,
		"RetryConnectTimeout":              TestRetryConnectTimeout,
		"RetryWhileLoading":                TestRetryWhileLoading,
		"NoRetry":                          TestNoRetry,
		"NoRetryAfterArrival":              TestNoRetryAfterArrival,
		"AnswerFraming":                    TestAnswerFraming,
		"AnswerBytes":                      TestAnswerBytes,
		"AnswerTrailer":                    TestAnswerTrailer,
		"AnswerDuringUpload":               TestAnswerDuringUpload,
		"AnswerDuringUploadWithoutReading": TestAnswerDuringUploadWithoutReading,
		"ClientLeaves":                     TestClientLeaves,
		"ClientLeavesRawReplica":           TestClientLeavesRawReplica,
		"ClientLeavesAfterAnswer":          TestClientLeavesAfterAnswer,
		"ClientLeavesWhileSending":         TestClientLeavesWhileSending,
		"KeepAlive":                        TestKeepAlive,
		"Pipelining":                       TestPipelining,
		"Smuggling":                        TestSmuggling,
		"BadRequests":                      TestBadRequests,
		"RequestTimeout":                   TestRequestTimeout,
		"HTTP10":                           TestHTTP10,
		"HTTP10Truncated":                  TestHTTP10Truncated,
		"NobodyLeft":                       TestNobodyLeft,
		"RequestBodyBytes":                 TestRequestBodyBytes,
		"AllFailing":                       TestAllFailing,
		"ReplicaKilled":                    TestReplicaKilled,
		"Expect":                           TestExpect,
		"UnsolicitedAnswer":                TestUnsolicitedAnswer,
		"BytesBehindAnswer":                TestBytesBehindAnswer,
		"SimulatedFaults":                  TestSimulatedFaults,
		"LoadingLoneReplica":               TestLoadingLoneReplica,
		"ReplicaLoads":                     TestReplicaLoads,
		"ConnectionClose":                  TestConnectionClose,
		"DeadReplicaCostsNoRequest":        TestDeadReplicaCostsNoRequest,
		"ServerErrorDoesNotPoison":         TestServerErrorDoesNotPoison,
		"ServerErrorsEject":                TestServerErrorsEject,
		"AdmissionRefuses":                 TestAdmissionRefuses,
		"AdmissionDrains":                  TestAdmissionDrains,
		"BodyWithoutLastChunk":             TestBodyWithoutLastChunk,
		"Drain":                            TestDrain,
		"RequestID":                        TestRequestID,
		"Stream":                           TestStream,
		"StreamOutlivesItsReplica":         TestStreamOutlivesItsReplica,
	} {
		t.Run(name, test)
	}
}
