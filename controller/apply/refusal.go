package apply

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConflictError says that somebody else has a field that the plan wants to write.
type ConflictError struct {
	Object string
	Fields []string // with the managers that hold them
	Err    error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("write %s: %s belongs to somebody else; nothing was overwritten", e.Object, strings.Join(e.Fields, ", "))
}

// Unwrap gives the API server's answer.
func (e *ConflictError) Unwrap() error { return e.Err }

// RefusedError says that the API server does not let a write through, now or the next time: rights are missing, an admission policy or a
// webhook denies it, a webhook that must be asked does not answer, or it is invalid.
type RefusedError struct {
	Verb, Object string
	Err          error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the API server refuses to %s %s: %v", e.Verb, e.Object, e.Err)
}

// Unwrap gives the API server's answer.
func (e *RefusedError) Unwrap() error { return e.Err }

// Rights says whether it is rights that are missing. Quotas and other admission built into the API server are told from the authorizer
// by its sentence, as nothing else differs: User "…" cannot <verb> resource "…".
func (e *RefusedError) Rights() bool {
	if !apierrors.IsForbidden(e.Err) {
		return false
	}
	_, why, _ := strings.Cut(message(e.Err), " is forbidden: ")
	user, ok := strings.CutPrefix(why, "User ")
	if !ok {
		return false
	}
	name, err := strconv.QuotedPrefix(user)
	return err == nil && strings.HasPrefix(user[len(name):], " cannot ")
}

// Webhook is the name of the admission webhook that had to be asked and did not answer. It is empty where that is not what is wrong.
func (e *RefusedError) Webhook() string { return unanswered(e.Err) }

// Explain says what an error of a write to an object means: nil for nil, a ConflictError or a RefusedError where it is one, else err
// with the object's name: what a new plan may mend, an object that was replaced among it.
func Explain(verb, object string, err error) error {
	switch fields := conflicts(err); {
	case err == nil:
		return nil
	case len(fields) > 0:
		return &ConflictError{Object: object, Fields: fields, Err: err}
	case replaced(err):
		return fmt.Errorf("%s %s: it was replaced since the plan was made: %w", verb, object, err)
	case denied(err), unanswered(err) != "", undeclared(err), apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err), apierrors.IsRequestEntityTooLargeError(err):
		return &RefusedError{Verb: verb, Object: object, Err: err}
	}
	return fmt.Errorf("%s %s: %w", verb, object, err)
}

// conflicts are the fields that other managers hold.
func conflicts(err error) []string {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.Status().Details == nil {
		return nil
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, fmt.Sprintf("%s (%s)", cause.Field, cause.Message))
		}
	}
	return fields
}

// message is what the API server says, or "".
func message(err error) string {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return status.ErrStatus.Message
	}
	return ""
}

// denied says whether a webhook or an admission policy denies it. They choose code and reason as they like: a webhook that gives neither
// comes as code 400 without a reason.
func denied(err error) bool {
	m := message(err)
	return strings.HasPrefix(m, "admission webhook ") && strings.Contains(m, " denied the request") ||
		strings.Contains(m, "ValidatingAdmissionPolicy ") && strings.Contains(m, " denied request")
}

// undeclared says whether a field is not in the schema of its kind, as where a CRD is older than what is written. The API server makes that an
// internal error, or a bad request.
func undeclared(err error) bool {
	return strings.Contains(message(err), "field not declared in schema")
}

// unanswered is the webhook that the API server could not call, where it must; it makes that an internal error, or whatever else came
// back.
func unanswered(err error) string {
	_, rest, ok := strings.Cut(message(err), "failed calling webhook ")
	if !ok || denied(err) {
		return ""
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return ""
	}
	name, err := strconv.Unquote(quoted)
	if err != nil {
		return ""
	}
	return name
}

// noDryRun says whether a webhook has side effects, so that the API server does not ask it on a dry run.
func noDryRun(err error) bool {
	return apierrors.ReasonForError(err) == metav1.StatusReasonBadRequest && !denied(err) && strings.Contains(message(err), "does not support dry run")
}

// replaced says whether the object has another UID than the write: the API server takes that for an attempt to change it.
func replaced(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsInvalid(err) && status.ErrStatus.Details != nil &&
		slices.ContainsFunc(status.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}
