// An agent in Go that asks the Decision Sidecar first. All it has of the sidecar is the .proto. It does not sign, so only a
// sidecar with --dev answers it; node/ask.js signs. To run it, in this directory, with protoc or, as here, a clone's own
// (`make demo` brings it):
//
//	go build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
//	PATH=$PWD/bin:$PATH ../../../.venv/bin/python -m grpc_tools.protoc -I ../../../proto --go_out=. --go_opt=module=sidecar.example \
//	  --go-grpc_out=. --go-grpc_opt=module=sidecar.example sidecar/v1/decision.proto
//	go run . unix:/path/to/sidecar.sock
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sidecarv1 "sidecar.example/v1"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: ask unix:/path/to/sidecar.sock")
	}
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // no answer in time is no permission
	defer cancel()
	if err := readCustomer(ctx, sidecarv1.NewDecisionServiceClient(conn)); err != nil {
		log.Fatal(err)
	}
}

func readCustomer(ctx context.Context, sidecar sidecarv1.DecisionServiceClient) error {
	question := &sidecarv1.DecideRequest{
		Agent:     "billing-agent",
		Action:    "crm.read",
		Resource:  &sidecarv1.Resource{Type: "customer", Id: "acme-42"},
		Arguments: []byte(`{"fields":["name"]}`),
	}
	answer, err := sidecar.Decide(ctx, question)
	if err != nil {
		return err
	}
	if !proves(answer, question) {
		return errors.New("the receipt is for another question or answer")
	}
	if answer.Effect != sidecarv1.Effect_EFFECT_ALLOW || len(answer.Obligations) > 0 {
		return fmt.Errorf("not allowed: %v %v", answer.Effect, answer.Reasons)
	}
	customer := []byte(`{"name":"Acme GmbH"}`) // the action itself
	recorded, err := sidecar.ReportOutcome(ctx, &sidecarv1.ReportOutcomeRequest{
		Agent:      question.Agent,
		DecisionId: answer.DecisionId,
		Status:     sidecarv1.OutcomeStatus_OUTCOME_STATUS_EXECUTED,
		Response:   customer,
	})
	if err != nil {
		return err
	}
	fmt.Printf("ALLOW %s at seq %d, outcome at seq %d\n", answer.DecisionId, answer.Seq, recorded.Seq)
	return nil
}

// proves tells whether the receipt names this answer and this question. Its signature is for `sidecar verify --receipt`.
func proves(answer *sidecarv1.DecideResponse, question *sidecarv1.DecideRequest) bool {
	text, _, signed := strings.Cut(string(answer.Receipt), "\n\n")
	named := fmt.Sprintf("\ndecision %s\neffect %s\nrequest %s", answer.DecisionId,
		strings.TrimPrefix(answer.Effect.String(), "EFFECT_"), hex.EncodeToString(digest(question)))
	return signed && strings.HasSuffix(text, named)
}

// digest is the request digest of proto/LEDGER.md.
func digest(q *sidecarv1.DecideRequest) []byte {
	hash := sha256.New()
	hash.Write([]byte("sidecar/v1/request\x00"))
	field := func(value []byte) {
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(len(value))))
		hash.Write(value)
	}
	option := func(action string, resource *sidecarv1.Resource, arguments []byte) {
		field([]byte(action))
		field([]byte(resource.GetType()))
		field([]byte(resource.GetId()))
		field(arguments)
	}
	field([]byte(q.Agent))
	option(q.Action, q.Resource, q.Arguments)
	field(q.Context)
	field([]byte(q.Purpose))
	field([]byte(q.TraceParent))
	field([]byte(q.IdempotencyKey))
	field(q.LastReceipt)
	field(binary.BigEndian.AppendUint32(nil, uint32(len(q.Alternatives))))
	for _, a := range q.Alternatives {
		option(a.Action, a.Resource, a.Arguments)
	}
	field([]byte(q.Executor))
	field([]byte(q.ApprovalOf))
	field(binary.BigEndian.AppendUint32(nil, uint32(len(q.Delegations))))
	for _, d := range q.Delegations {
		field(d.Text)
		field(d.Key)
		field(d.Signature)
	}
	return hash.Sum(nil)
}
